"""Checks that the pods of a slot serve the version that was judged, before they get a share."""

from __future__ import annotations

import json
import os
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Self

from moaa.artifacts import Artifact
from moaa.chat.pool import Endpoint
from moaa.errors import MoaaError
from moaa.kubernetes.names import ENGINES_KEY
from moaa.registry.canary import FILE, Canary
from moaa.store import Missing

ANSWER_S: Final = 30.0


class OtherModel(MoaaError):
    """The model that answers is not the model that was judged."""


@dataclass(frozen=True, slots=True)
class CanaryCheck:
    """Asks servers the canary prompts of the judged model, whose answers are known."""

    canary: Canary | None

    @classmethod
    def of(cls, version: Artifact) -> Self:
        """Return the check for a version. It asks nothing if the version was published without a
        canary set; if that is gone or was changed since, ArtifactError says so."""
        try:
            return cls(Canary.of(version.text(FILE), f"{version.uri}/{FILE}"))
        except Missing:
            return cls(None)

    def check(self, urls: Sequence[str]) -> str:
        """Ask each server (its address ends with `/v1`); return in words what was found.

        Raises OtherModel if one of them is not the judged model, MoaaError if one cannot be asked.
        """
        if self.canary is None:
            return "no canary was asked: the version has none"
        key = os.environ.get(ENGINES_KEY)
        found = [self.canary.ask(Endpoint(url, _served_name(url, key), key)) for url in urls]
        if wrong := [each for each in found if not each.agrees]:
            raise OtherModel(f"the model that answers is not the one that was judged: {wrong[0]}")
        return str(found[0]) if found else "no canary was asked: no pod is up"


def _served_name(url: str, key: str | None) -> str:
    """Return the server's own name for its model.
    Pods are asked directly, never through a proxy."""
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        request = urllib.request.Request(f"{url}/models", headers=headers)
        with opener.open(request, timeout=ANSWER_S) as reply:
            return str(json.loads(reply.read())["data"][0]["id"])
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise MoaaError(f"the canary: {url} does not say which model it serves: {error}") from error
