"""The cluster: the objects that this process may read and change.

    cluster = Cluster.connect()                        # in a pod, or by KUBECONFIG
    for pod in cluster.list(PODS, f"{names.MODEL}=smol"): ...
    cluster.update(DEPLOYMENTS, "moaa-smol", change)   # read, change, write over what was read

Objects are the API's own JSON as dicts, so that one module works for Deployments and TrainJobs.
All calls block: a coroutine calls them through `asyncio.to_thread`. Failures that may pass are
retried for `retry_s` seconds; refusals are errors of `moaa.kubernetes.errors`.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, Self

from moaa.errors import ClusterError
from moaa.kubernetes.errors import Conflict, Forbidden, Gone, NotFound, Unreachable
from moaa.kubernetes.kinds import EVENTS, PODS, VERSION, Kind, Object, Objects
from moaa.kubernetes.request import Request, Verb
from moaa.kubernetes.transport import RETRY_S, Transport, login

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

SILENCE_S: Final = 90.0
"""A watch gets a bookmark about every minute, so a connection that is silent for longer is dead."""
PAGE: Final = 500
UPDATE_TRIES: Final = 20


class Cluster:
    """One namespace of a cluster, with the rights of this process's account. Thread-safe."""

    def __init__(
        self, client: Any, namespace: str, *, inside: bool = False, patience_s: float = RETRY_S
    ) -> None:
        """`client`: a kubernetes.client.ApiClient. `inside`: this process is a pod of the cluster,
        so it can reach the addresses of pods. `patience_s`: how long a request without `retry_s`
        is retried."""
        self.namespace, self.inside = namespace, inside
        self._transport = Transport(client, patience_s)
        self.host = self._transport.host

    @classmethod
    def connect(cls, namespace: str | None = None, *, patience_s: float = RETRY_S) -> Self:
        """Return the cluster that `transport.login` finds. Raises ClusterError."""
        client, namespace, inside = login(namespace)
        return cls(client, namespace, inside=inside, patience_s=patience_s)

    def get(self, kind: Kind, name: str, *, retry_s: float | None = None) -> Object:
        """Return one object. Raises NotFound."""
        return self._object(self._request("get", kind, name), retry_s)

    def list(
        self, kind: Kind, labels: str = "", *, fields: str = "", retry_s: float | None = None
    ) -> Objects:
        """Return all objects with these labels and fields, from all pages."""
        return self.listing(kind, labels, fields=fields, retry_s=retry_s)[0]

    def listing(
        self, kind: Kind, labels: str = "", *, fields: str = "", retry_s: float | None = None
    ) -> tuple[Objects, str]:
        """Return all objects, and the resourceVersion from which a watch can continue."""
        found: Objects = []
        query: dict[str, Any] = {"labelSelector": labels, "fieldSelector": fields, "limit": PAGE}
        while True:
            try:
                page = self._object(self._request("list", kind, query=query), retry_s)
            except Gone:  # between two pages
                return self.listing(kind, labels, fields=fields, retry_s=retry_s)
            found += page.get("items") or []
            if not (more := page["metadata"].get("continue")):
                return found, page["metadata"]["resourceVersion"]
            query["continue"] = more

    def create(self, kind: Kind, body: Object, *, retry_s: float | None = None) -> Object:
        """Create the object and return it. Raises Conflict if one of this name exists."""
        return self._object(self._request("create", kind, body=body), retry_s)

    def patch(self, kind: Kind, name: str, body: Object, *, retry_s: float | None = None) -> Object:
        """Apply a JSON merge patch and return the object.

        With `metadata.resourceVersion` in the patch: raises Conflict if that is not the newest.
        """
        return self._object(self._request("patch", kind, name, body=body), retry_s)

    def update(
        self,
        kind: Kind,
        name: str,
        change: Callable[[Object], Object | None],
        *,
        known: Object | None = None,
        part: str = "",
        retry_s: float | None = None,
    ) -> Object:
        """Change an object and return it. If another process was faster, read it and change it
        again.

        `change` returns a merge patch for the object it gets, or None if there is nothing to do.
        `known`: a copy that may be the newest, which saves the first read. `part`: the subresource
        of the patch (`scale`); if there was a change, the subresource is returned.
        """
        for _ in range(UPDATE_TRIES):
            found = known or self.get(kind, name, retry_s=retry_s)
            known = None
            if (wanted := change(found)) is None:
                return found
            version = {"resourceVersion": found["metadata"]["resourceVersion"]}
            wanted["metadata"] = {**wanted.get("metadata", {}), **version}
            try:
                return self.patch(kind, f"{name}/{part}" if part else name, wanted, retry_s=retry_s)
            except Conflict:
                time.sleep(random.uniform(0, 0.05))
        raise Conflict(
            f"{kind.name} '{name}' in namespace '{self.namespace}' was changed by others "
            f"{UPDATE_TRIES} times in a row."
        )

    def delete(
        self,
        kind: Kind,
        name: str,
        *,
        seen: Object | None = None,
        grace_s: int | None = None,
        retry_s: float | None = None,
    ) -> None:
        """Delete the object and what belongs to it; do nothing if it does not exist.

        `seen`: delete the object only if it is still exactly this; else raise Conflict. `grace_s`:
        how long a pod may take to end, instead of its own `terminationGracePeriodSeconds`.
        """
        options: Object = {"propagationPolicy": "Background"}  # otherwise a Job's pods would stay
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        if seen is not None:
            exactly = {key: seen["metadata"][key] for key in ("uid", "resourceVersion")}
            options["preconditions"] = exactly
        with contextlib.suppress(NotFound):
            request = self._request("delete", kind, name, body=options)
            self._transport.read(request, retry_s=retry_s)

    def date(self) -> str:
        """Return the API server's time: the Date header of an answer."""
        answer = self._transport.open(self._request("get", VERSION))
        return str(answer.headers.get("Date") or "")

    def events(self, name: str) -> Objects:
        """Return the events about the object of this name, oldest first."""
        found = self.list(EVENTS, fields=f"involvedObject.name={name}")
        return sorted(
            found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or ""
        )

    def log(self, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        """Return the last lines of a container's log; an empty text if there is none.

        `previous`: of the container that ran before this one.
        """
        query = {"container": container, "tailLines": lines, "previous": str(previous).lower()}
        request = self._request("get", PODS, f"{pod}/log", query=query)
        try:
            return self._transport.read(request, retry_s=5).decode(errors="replace")
        except (Forbidden, Unreachable):
            raise
        except ClusterError:  # not started yet, or the previous one is gone
            return ""

    def follow_log(
        self,
        pod: str,
        container: str,
        query: Mapping[str, Any] | None = None,
        *,
        silence_s: float | None = None,
    ) -> HTTPResponse:
        """Return an open stream of a container's log, for `transport.lines`.

        `query`: further parameters of the API (`sinceTime`). `lines` raises Unreachable if nothing
        comes for `silence_s`.
        """
        query = {"container": container, "follow": "true", **(query or {})}
        request = self._request("get", PODS, f"{pod}/log", query=query, read_s=silence_s)
        return self._transport.open(request)

    def watch(
        self, kind: Kind, labels: str, since: str, *, fields: str = "", timeout_s: int = 240
    ) -> HTTPResponse:
        """Return an open stream of changes after a resourceVersion, for `transport.lines`.

        It ends after `timeout_s`.
        """
        query = {
            "watch": "true",
            "labelSelector": labels,
            "fieldSelector": fields,
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": timeout_s,
        }
        return self._transport.open(self._request("watch", kind, query=query, read_s=SILENCE_S))

    def _request(self, verb: Verb, kind: Kind, name: str = "", **more: Any) -> Request:
        return Request(verb, kind, self.namespace, name, **more)

    def _object(self, request: Request, retry_s: float | None = None) -> Object:
        found: Object = json.loads(self._transport.read(request, retry_s=retry_s))
        return found
