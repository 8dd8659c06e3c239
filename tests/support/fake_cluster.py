"""A namespace in memory with the reading half of `moaa.kubernetes.api.Cluster`, for what preflight
looks at.

FakeCluster(inside=True).put(SECRETS, {...}); .forbid(NODES); .unknown(TRAIN_JOBS); .deny("patch",
"deployments")
"""

from __future__ import annotations

import time
from collections.abc import Collection
from email.utils import formatdate
from typing import Self

from moaa.kubernetes.errors import Forbidden, NotFound
from moaa.kubernetes.kinds import Kind, Object


class FakeCluster:
    def __init__(self, *, inside: bool = False) -> None:
        self.inside, self.namespace, self.host = inside, "team", "https://cluster"
        self.reviews: list[Object] = []
        self.ahead_s = 0.0
        self._objects: dict[str, dict[str, Object]] = {}
        self._forbidden: set[str] = set()
        self._unknown: set[str] = set()
        self._denied: dict[tuple[str, str], Collection[str]] = {}

    def put(self, kind: Kind, *found: Object) -> Self:
        self._objects.setdefault(kind.plural, {}).update(
            {each["metadata"]["name"]: each for each in found}
        )
        return self

    def remove(self, kind: Kind, name: str) -> Self:
        del self._objects[kind.plural][name]
        return self

    def forbid(self, *kinds: Kind) -> Self:
        self._forbidden |= {kind.plural for kind in kinds}
        return self

    def unknown(self, *kinds: Kind) -> Self:
        self._unknown |= {kind.plural for kind in kinds}
        return self

    def deny(self, verb: str, resource: str, *, but: Collection[str] = ()) -> Self:
        """No right to this, but for the objects named in `but`."""
        self._denied[verb, resource] = but
        return self

    def date(self) -> str:
        return formatdate(time.time() + self.ahead_s, usegmt=True)

    def get(self, kind: Kind, name: str) -> Object:
        self._refuse(kind)
        if name not in self._objects.get(kind.plural, {}):
            raise NotFound(f"there is no {kind.name} '{name}' in namespace '{self.namespace}'.")
        return self._objects[kind.plural][name]

    def list(self, kind: Kind, labels: str = "") -> list[Object]:
        self._refuse(kind)
        return list(self._objects.get(kind.plural, {}).values())

    def create(self, kind: Kind, body: Object) -> Object:
        """The only things that preflight creates are questions about rights."""
        self._refuse(kind)
        self.reviews.append(body)
        asked = body["spec"]["resourceAttributes"]
        resource = "/".join(filter(None, (asked["resource"], asked["subresource"])))
        right = (asked["verb"], resource)
        return {
            "status": {"allowed": right not in self._denied or asked["name"] in self._denied[right]}
        }

    def _refuse(self, kind: Kind) -> None:
        if kind.plural in self._unknown:
            raise NotFound(f"the cluster does not know {kind.right}")
        if kind.plural in self._forbidden:
            raise Forbidden(f"the account may not list {kind.right}")
