"""The cluster: who we are there, and requests that heal what can heal.

    cluster = Cluster.connect()                                    # in a pod, or by KUBECONFIG
    for pod in cluster.list(PODS, f"{names.MODEL}=smol"): ...
    cluster.update(DEPLOYMENTS, "moaa-smol", change)               # read, change, write over what was read

Objects are the API's own JSON as dicts, so that one module serves Deployments and TrainJobs alike.
All calls block: from a coroutine they go through `asyncio.to_thread`. Tried again for `patience_s`:
broken connections, 429, 5xx. What is refused is an error of `refusal`: NotFound, Conflict,
Forbidden (who lacks which right).
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Self

from moaa.errors import ClusterError
from moaa.kubernetes.kinds import EVENTS, PODS, Kind
from moaa.kubernetes.refusal import (
    Conflict,
    Forbidden,
    Gone,
    NotFound,
    Unreachable,
    refusal,
    status_of,
)

Object = dict[str, Any]
Objects = list[Object]

PATIENCE_S: Final = 60.0
"""A control plane that is being upgraded comes back within this."""
TIMEOUT_S: Final = (10.0, 30.0)
"""To connect, and between two pieces of the answer."""
SILENCE_S: Final = 90.0
"""A watch gets a bookmark about every minute: a connection that is silent for longer is dead."""
PAGE: Final = 500
UPDATE_TRIES: Final = 20
ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Cluster:
    """One namespace of a cluster, as the account of this process sees it. Thread-safe."""

    def __init__(self, client: Any, namespace: str, *, inside: bool = False) -> None:
        """`client`: a kubernetes.client.ApiClient. `inside`: this process is a pod there, so it
        reaches pod addresses."""
        self.namespace, self.inside = namespace, inside
        self.host: str = client.configuration.host
        self._client = client

    @classmethod
    def connect(cls, namespace: str | None = None) -> Self:
        """The cluster that KUBECONFIG names, or the one this pod runs in, or that of
        ~/.kube/config.

        The namespace: as given, else MOAA_NAMESPACE, else the service account's, else the
        context's. Raises ClusterError.
        """
        try:
            from kubernetes import client, config
        except ImportError:
            raise ClusterError(
                "the Kubernetes client is not installed: pip install 'moaa[kubernetes]'"
            ) from None
        settings = client.Configuration()
        inside = (
            not os.environ.get("KUBECONFIG")
            and "KUBERNETES_SERVICE_HOST" in os.environ
            and (ACCOUNT / "token").exists()
        )
        try:
            if inside:
                config.load_incluster_config(settings)
                own = (ACCOUNT / "namespace").read_text().strip()
            else:
                config.load_kube_config(client_configuration=settings)
                own = config.list_kube_config_contexts()[1]["context"].get("namespace")
        except (config.ConfigException, OSError) as error:
            raise ClusterError(
                f"no Kubernetes cluster is configured: {error} Set KUBECONFIG (or ~/.kube/config) "
                "and its current context, "
                "or run in a pod whose service account's token is mounted."
            ) from None
        settings.retries = False  # they are ours, so that they are bounded in time
        return cls(
            client.ApiClient(settings),
            namespace or os.environ.get("MOAA_NAMESPACE") or own or "default",
            inside=inside,
        )

    def get(self, kind: Kind, name: str, *, patience_s: float = PATIENCE_S) -> Object:
        return json.loads(self._request("get", "GET", kind, name, patience_s=patience_s))

    def list(self, kind: Kind, labels: str = "", *, fields: str = "") -> Objects:
        """All objects with these labels (and fields), of all pages."""
        return self.listing(kind, labels, fields=fields)[0]

    def listing(self, kind: Kind, labels: str = "", *, fields: str = "") -> tuple[Objects, str]:
        """All objects, and the resourceVersion from which a watch goes on."""
        found: Objects = []
        query: dict[str, Any] = {"labelSelector": labels, "fieldSelector": fields, "limit": PAGE}
        while True:
            try:
                page = json.loads(self._request("list", "GET", kind, query=query))
            except Gone:  # between two pages
                return self.listing(kind, labels, fields=fields)
            found += page.get("items") or []
            if not (more := page["metadata"].get("continue")):
                return found, page["metadata"]["resourceVersion"]
            query["continue"] = more

    def create(self, kind: Kind, body: Object) -> Object:
        """The object as created. Raises Conflict when one of this name is there."""
        return json.loads(self._request("create", "POST", kind, body=body))

    def patch(
        self, kind: Kind, name: str, body: Object, *, patience_s: float = PATIENCE_S
    ) -> Object:
        """The object after a JSON merge patch; with `metadata.resourceVersion` in it, Conflict
        where that is not the newest."""
        return json.loads(
            self._request("patch", "PATCH", kind, name, body=body, patience_s=patience_s)
        )

    def update(
        self,
        kind: Kind,
        name: str,
        change: Callable[[Object], Object | None],
        *,
        known: Object | None = None,
        patience_s: float = PATIENCE_S,
    ) -> Object:
        """The object after `change`, which gives a merge patch for what it is shown, or None:
        nothing to do.

        Written only over what was read; read and changed again where someone was faster. `known`: a
        copy that may be the newest, which saves the first read.
        """
        for _ in range(UPDATE_TRIES):
            found = known or self.get(kind, name, patience_s=patience_s)
            known = None
            if (wanted := change(found)) is None:
                return found
            wanted["metadata"] = {
                **wanted.get("metadata", {}),
                "resourceVersion": found["metadata"]["resourceVersion"],
            }
            try:
                return self.patch(kind, name, wanted, patience_s=patience_s)
            except Conflict:
                time.sleep(random.uniform(0, 0.05))
        raise Conflict(
            f"{kind.name} '{name}' in namespace '{self.namespace}' was changed by others "
            f"{UPDATE_TRIES} times in a row."
        )

    def delete(
        self, kind: Kind, name: str, *, seen: Object | None = None, patience_s: float = PATIENCE_S
    ) -> None:
        """The object goes, and what belongs to it; one that is gone already is no error.

        With `seen`, it goes only if it is still exactly that: Conflict otherwise.
        """
        options: Object = {"propagationPolicy": "Background"}  # a Job's pods would stay otherwise
        if seen is not None:
            options["preconditions"] = {
                key: seen["metadata"][key] for key in ("uid", "resourceVersion")
            }
        with contextlib.suppress(NotFound):
            self._request("delete", "DELETE", kind, name, body=options, patience_s=patience_s)

    def date(self) -> str:
        """The API server's clock, as the Date header of an answer."""
        return str(
            self._open("get", "GET", _Version("", "version", "version")).headers.get("Date") or ""
        )

    def events(self, name: str) -> Objects:
        """What happened to the object of this name, oldest first."""
        found = self.list(EVENTS, fields=f"involvedObject.name={name}")
        return sorted(
            found, key=lambda event: event.get("lastTimestamp") or event.get("eventTime") or ""
        )

    def log(self, pod: str, container: str, *, lines: int, previous: bool = False) -> str:
        """The last lines of a container's log; `previous`: of the one that ran before it. Empty
        where there is none."""
        query = {"container": container, "tailLines": lines, "previous": str(previous).lower()}
        try:
            return self._request(
                "get", "GET", PODS, f"{pod}/log", query=query, patience_s=5
            ).decode(errors="replace")
        except (Forbidden, Unreachable):
            raise
        except ClusterError:  # it has not started, or the one before is gone
            return ""

    def follow_log(
        self,
        pod: str,
        container: str,
        query: Mapping[str, Any] | None = None,
        *,
        silence_s: float | None = None,
    ) -> Any:
        """An open stream of a container's log for `lines`, with further query parameters of the API
        (`sinceTime`).

        `lines` raises Unreachable when nothing came for `silence_s`.
        """
        asked = {"container": container, "follow": "true", **(query or {})}
        return self._open(
            "get", "GET", PODS, f"{pod}/log", query=asked, timeout_s=(TIMEOUT_S[0], silence_s)
        )

    def watch(self, kind: Kind, labels: str, since: str, *, timeout_s: int = 240) -> Any:
        """An open stream of what changes after a resourceVersion, for `lines`; it ends after
        `timeout_s`."""
        query = {
            "watch": "true",
            "labelSelector": labels,
            "resourceVersion": since,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": timeout_s,
        }
        return self._open("watch", "GET", kind, query=query, timeout_s=(TIMEOUT_S[0], SILENCE_S))

    def _request(self, *what: Any, patience_s: float = PATIENCE_S, **how: Any) -> bytes:
        """The answer's body. Tried again for `patience_s` while that can heal."""
        from urllib3.exceptions import HTTPError

        given_up, wait_s = time.monotonic() + patience_s, 0.1
        while True:
            after_s = 0.0
            try:
                return self._open(*what, **how).data
            except _Again as again:
                error: Exception = again
                after_s = again.after_s
            except (HTTPError, OSError) as broken:  # in the middle of the answer
                error = broken
            pause_s = max(after_s, random.uniform(wait_s / 2, wait_s))
            if time.monotonic() + pause_s > given_up:
                raise Unreachable(f"{error} (given up after {patience_s:.0f} s)") from None
            time.sleep(pause_s)
            wait_s = min(2 * wait_s, 5.0)

    def _open(
        self,
        verb: str,
        method: str,
        kind: Kind,
        name: str = "",
        *,
        query: Mapping[str, Any] | None = None,
        body: Object | None = None,
        timeout_s: tuple[float, float | None] = TIMEOUT_S,
    ) -> Any:
        """The answer, its body unread. Raises Unreachable (`_Again`) for what may heal, and what
        `refusal` says for the rest."""
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        content = "application/merge-patch+json" if method == "PATCH" else "application/json"
        try:
            return self._client.call_api(
                kind.path(self.namespace, name),
                method,
                query_params=[(key, value) for key, value in (query or {}).items() if value != ""],
                header_params={"Content-Type": content, "Accept": "application/json, */*"},
                body=body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=timeout_s,
            )
        except ApiException as error:
            message, reason = status_of(error.body or error.reason)
            # A quota that someone else changed at the same moment is a 409 too, and heals;
            # `AlreadyExists` does not.
            racing = error.status == 409 and method == "POST" and reason != "AlreadyExists"
            # Status 0 is a TLS failure: a server that is going down, unless it is the certificate.
            heals = (
                error.status == 429
                or error.status >= 500
                or racing
                or (not error.status and "CERTIFICATE" not in message)
            )
            if not heals:
                raise refusal(
                    error.status, message, verb, kind, name, self.namespace, self.host
                ) from None
            said, after = (
                f"HTTP {error.status}: {message}",
                (error.headers or {}).get("Retry-After", ""),
            )
        except (HTTPError, OSError) as broken:
            said, after = str(broken) or type(broken).__name__, ""
        raise _Again(
            f"Kubernetes at {self.host} could not be asked to {verb} {kind.right} in namespace "
            f"'{self.namespace}': {said}",
            float(after) if after.isdecimal() else 0.0,
        )


class _Version(Kind):
    """What every server tells everybody."""

    def path(self, namespace: str, name: str = "") -> str:
        return "/version"


class _Again(Unreachable):
    """It may heal; not before `after_s`."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


def lines(stream: Any) -> Iterator[bytes]:
    """The lines of an open stream, as they come. Raises Unreachable when the connection breaks."""
    from urllib3.exceptions import HTTPError

    rest = b""
    try:
        for piece in stream.stream(amt=None, decode_content=True):
            *whole, rest = (rest + piece).split(b"\n")
            yield from whole
    except (HTTPError, OSError, ValueError) as error:  # ValueError: closed by another thread
        raise Unreachable(f"the connection to Kubernetes broke: {error}") from None
    if rest:
        yield rest
