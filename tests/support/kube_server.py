"""A small server that speaks the Kubernetes API: objects in memory, watches, optimistic
concurrency; it fails as it is told to.

with KubeServer() as kube:
    kube.put(DEPLOYMENTS, deployment("moaa-a", model="a"))
    cluster = kube.cluster()
    kube.fail(503, times=2)                      # the next two requests
    kube.forget_history()                        # watches go on from versions that are too old: 410
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import json
import re
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from aiohttp import web

from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import Kind, Object
from tests.support.kube_queries import merge, selects
from tests.support.serving import Served

NAMESPACE = "team"
_PATH = re.compile(
    r"/api(?:s/[^/]+)?/v[^/]+/namespaces/(?P<ns>[^/]+)/(?P<plural>[^/]+)(?:/(?P<name>[^/]+)(?P<part>/log|/scale)?)?$"
)

_Fault = tuple[Callable[[str, str], bool], int, str, dict[str, str]]
"""(which requests, status, message, headers)."""


class KubeServer(Served):
    """One namespace, `team`, while in context."""

    def __init__(self) -> None:
        super().__init__()
        self.objects: dict[tuple[str, str], Object] = {}
        self.logs: dict[tuple[str, str, bool], str] = {}
        """By pod, container, and whether it is the container's that ran before."""
        self.requests: list[tuple[str, str, Object | None]] = []
        """(method, plural or plural/name, body)."""
        self.unknown: set[str] = set()
        """Kinds (plural) that this cluster does not know."""
        self.page = 500
        self.after_patch: Callable[[Object], None] = lambda found: None
        self._history: list[tuple[int, str, str, Object]] = []
        self._version, self._oldest = 100, 0
        self._faults: deque[_Fault] = deque()
        self._cut = 0
        self._lock = threading.RLock()

    def cluster(self, *, inside: bool = True, **how: Any) -> Cluster:
        from kubernetes import client

        settings = client.Configuration(host=f"http://127.0.0.1:{self.port}")
        settings.retries = False
        return Cluster(client.ApiClient(settings), NAMESPACE, inside=inside, **how)

    def put(self, kind: Kind, found: Object) -> Object:
        """Add or replace, as the cluster's own controllers do."""
        with self._lock:
            return self._write(kind.plural, copy.deepcopy(found))

    def remove(self, kind: Kind, name: str) -> None:
        with self._lock:
            self._drop(kind.plural, name)

    def find(self, kind: Kind, name: str) -> Object:
        with self._lock:
            return copy.deepcopy(self.objects[kind.plural, name])

    def fail(
        self,
        status: int,
        message: str = "as told",
        *,
        times: int = 1,
        headers: dict[str, str] | None = None,
        when: Callable[[str, str], bool] = lambda method, what: True,
    ) -> None:
        """The next requests that `when(method, "plural/name")` picks; status 0 breaks the
        connection."""
        with self._lock:
            self._faults.extend([(when, status, message, headers or {})] * times)

    def heal(self) -> None:
        """No request fails any more."""
        with self._lock:
            self._faults.clear()

    def cut_watches(self) -> None:
        """Every open watch ends in the middle of a line."""
        with self._lock:
            self._cut += 1

    def forget_history(self) -> None:
        """Open watches end, and cannot go on from where they were."""
        with self._lock:
            self._version += 1
            self._oldest = self._version
            self._cut += 1

    def count(self, method: str, what: str = "") -> int:
        return sum(made == method and named.startswith(what) for made, named, _ in self.requests)

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._handle)
        return app

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        path = _PATH.match(request.path)
        assert path, request.path
        body = await request.json() if request.can_read_body else None
        plural, name = path["plural"], path["name"]
        scales = path["part"] == "/scale"
        what = "/".join(filter(None, (plural, name, "scale" if scales else "")))
        with self._lock:  # a fault or a cut after this request was seen is not for it
            self.requests.append((request.method, what, body))
            fault, cut = self._fault(request.method, what), self._cut
        if fault is not None:
            _, status, message, headers = fault
            if not status:
                assert request.transport
                request.transport.abort()
            return _status(status or 500, message, headers)
        if plural in self.unknown or path["ns"] != NAMESPACE:
            return _status(404, "the server could not find the requested resource")
        if request.query.get("watch"):
            return await self._watch(request, plural, cut)
        with self._lock:
            if path["part"] == "/log":
                query = request.query
                text = self.logs.get((name, query["container"], query.get("previous") == "true"))
                return (
                    web.Response(text=text)
                    if text is not None
                    else _status(400, "container is waiting to start")
                )
            if name is None:
                return (
                    self._list(request, plural)
                    if request.method == "GET"
                    else self._create(plural, body or {})
                )
            if (plural, name) not in self.objects:
                return _status(404, f'{plural} "{name}" not found')
            if scales:  # nothing else of the object can be written by it
                wanted = body or {}
                body = {"spec": {"replicas": wanted["spec"]["replicas"]}}
                body["metadata"] = {
                    k: v for k, v in wanted.get("metadata", {}).items() if k == "resourceVersion"
                }
            elif plural == "deployments" and request.method == "PATCH":
                return _status(403, "nobody of ours may patch Deployments")
            return self._change(request.method, plural, name, body)

    def _fault(self, method: str, what: str) -> _Fault | None:
        """The first fault that this request meets. It is used up by it."""
        for fault in self._faults:
            if fault[0](method, what):
                self._faults.remove(fault)
                return fault
        return None

    def _list(self, request: web.Request, plural: str) -> web.StreamResponse:
        start = int(request.query.get("continue") or 0)
        if start and start < self._oldest:
            return _status(410, "The provided continue parameter is too old")
        matching = [
            each
            for (kind, _), each in sorted(self.objects.items())
            if kind == plural and selects(request, each)
        ]
        at = start % 1000
        page, rest = matching[at : at + self.page], matching[at + self.page :]
        more = str(self._version * 1000 + at + self.page) if rest else ""
        return web.json_response(
            {"items": page, "metadata": {"resourceVersion": str(self._version), "continue": more}}
        )

    def _create(self, plural: str, body: Object) -> web.StreamResponse:
        if beginning := body["metadata"].get("generateName"):
            body["metadata"]["name"] = f"{beginning}{self._version}"
        if (plural, body["metadata"]["name"]) in self.objects:
            return _status(409, "already exists", reason="AlreadyExists")
        return web.json_response(self._write(plural, body), status=201)

    def _change(
        self, method: str, plural: str, name: str, body: Object | None
    ) -> web.StreamResponse:
        found = self.objects[plural, name]
        if method == "GET":
            return web.json_response(found)
        wanted = (
            (body or {}).get("preconditions", {})
            if method == "DELETE"
            else (body or {}).get("metadata", {})
        )
        seen = wanted.get("resourceVersion")
        if seen is not None and seen != found["metadata"]["resourceVersion"]:
            return _status(409, "the object has been modified", reason="Conflict")
        if method == "DELETE":
            self._drop(plural, name)
            return web.json_response({"status": "Success"})
        patched = copy.deepcopy(found)
        merge(
            patched,
            {
                **(body or {}),
                "metadata": {k: v for k, v in wanted.items() if k != "resourceVersion"},
            },
        )
        if patched != found:
            patched = self._write(plural, patched)
            self.after_patch(copy.deepcopy(patched))
        return web.json_response(patched)

    def _write(self, plural: str, found: Object) -> Object:
        self._version += 1
        found["metadata"]["resourceVersion"] = str(self._version)
        there = self.objects.get((plural, found["metadata"]["name"]))
        found["metadata"]["uid"] = there["metadata"]["uid"] if there else f"uid-{self._version}"
        kind = "MODIFIED" if there else "ADDED"
        self.objects[plural, found["metadata"]["name"]] = found
        self._history.append((self._version, kind, plural, copy.deepcopy(found)))
        return copy.deepcopy(found)

    def _drop(self, plural: str, name: str) -> None:
        self._version += 1
        gone = self.objects.pop((plural, name))
        gone["metadata"]["resourceVersion"] = str(self._version)
        self._history.append((self._version, "DELETED", plural, gone))

    async def _watch(self, request: web.Request, plural: str, cut: int) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):  # who watched is gone
            await self._tell(request, plural, response, cut)
        return response

    async def _tell(
        self, request: web.Request, plural: str, response: web.StreamResponse, cut: int
    ) -> None:
        since = int(request.query["resourceVersion"])
        if since < self._oldest:
            expired = {"kind": "Status", "code": 410, "message": "too old resource version"}
            await response.write(json.dumps({"type": "ERROR", "object": expired}).encode() + b"\n")
            return
        while cut == self._cut and not self._stop.is_set():
            with self._lock:
                news = [each for each in self._history if each[0] > since and each[2] == plural]
            for version, kind, _, found in news:
                since = version
                if selects(request, found):
                    await response.write(
                        json.dumps({"type": kind, "object": found}).encode() + b"\n"
                    )
            await asyncio.sleep(0.005)
        if cut != self._cut:
            await response.write(b'{"type": "MODI')


def _status(
    code: int, message: str, headers: dict[str, str] | None = None, *, reason: str = ""
) -> web.StreamResponse:
    body = {
        "kind": "Status",
        "status": "Failure",
        "code": code,
        "message": message,
        "reason": reason,
    }
    return web.json_response(body, status=code, headers=headers)
