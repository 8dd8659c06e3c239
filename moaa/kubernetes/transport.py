"""Sends requests to the API server through the official client, and retries failures that may pass.

Retried: broken connections, 429, 5xx, and 401 after an accepted login. The client's own retries are
off, because ours are limited in time.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from moaa.errors import ClusterError, without_stop
from moaa.kubernetes.errors import NoCluster, Unreachable, refusal, status_of
from moaa.kubernetes.request import CONNECT_S, Request
from moaa.packages import install_command
from moaa.progress.messages import log

if TYPE_CHECKING:
    from urllib3 import HTTPResponse

RETRY_S: Final = 60.0
"""Requests are retried for this long. An upgrade of the control plane takes less time."""
OUTAGE_S: Final = 20 * 60.0
"""A stage retries for this long: its work would be lost. The store's time (`moaa.store.client`)."""
_QUIET_S: Final = 20.0
"""A longer outage is shown."""
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0
_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Transport:
    """The way to one API server. Thread-safe."""

    def __init__(self, client: Any, patience_s: float = RETRY_S) -> None:
        """`client`: a kubernetes.client.ApiClient. `patience_s`: how long requests are retried that
        say nothing else."""
        self.host: str = client.configuration.host
        self._client = client
        self._patience_s = patience_s
        self._accepted = False
        """Whether the API server has accepted our login at least once."""

    def read(self, request: Request, *, retry_s: float | None = None) -> bytes:
        """Return the answer's body. Failures that may pass are retried for `retry_s`."""
        from urllib3.exceptions import HTTPError

        if retry_s is None:
            retry_s = self._patience_s
        begun, pause_s, said = time.monotonic(), _FIRST_PAUSE_S, False
        while True:
            after_s = 0.0
            try:
                answer = self.open(request).data
                if said:
                    log.warning(f"Kubernetes at {self.host} answers again")
                return answer
            except Retryable as retryable:
                error: Exception = retryable
                after_s = retryable.after_s
            except (HTTPError, OSError) as broken:  # in the middle of the answer
                error = broken
            wait_s = max(after_s, random.uniform(pause_s / 2, pause_s))
            away_s = time.monotonic() - begun
            if away_s + wait_s > retry_s:
                raise Unreachable(
                    f"{without_stop(error)} (given up after {retry_s:.0f} s)"
                ) from None
            if away_s > _QUIET_S and retry_s > RETRY_S and not said:
                said = True
                log.warning(
                    f"{without_stop(error)}. It is asked again, for up to {retry_s / 60:.0f} min"
                )
            time.sleep(wait_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    def open(self, request: Request) -> HTTPResponse:
        """Return the answer with its body unread, without a retry.

        Raises Retryable (an Unreachable) for failures that may pass, and the errors of `refusal`.
        """
        from kubernetes.client.exceptions import ApiException
        from urllib3.exceptions import HTTPError

        patches = request.method == "PATCH"
        try:
            answer: HTTPResponse = self._client.call_api(
                request.path,
                request.method,
                query_params=[(key, value) for key, value in request.query.items() if value != ""],
                header_params={
                    "Content-Type": f"application/{'merge-patch+' if patches else ''}json",
                    "Accept": "application/json, */*",
                },
                body=request.body,
                auth_settings=["BearerToken"],
                _return_http_data_only=True,
                _preload_content=False,
                _request_timeout=(CONNECT_S, request.read_s),
            )
            self._accepted = True
            return answer
        except ApiException as error:
            message, reason = status_of(error.body or error.reason)
            # A token or certificate may just be replaced: a new one is read for each request.
            renewed = error.status == 401 and self._accepted
            if not renewed and not _may_heal(request, error.status, message, reason):
                raise refusal(request, self.host, error.status, message) from None
            cause = f"HTTP {error.status}: {message}"
            after = (error.headers or {}).get("Retry-After", "")
        except (HTTPError, OSError) as broken:
            cause, after = str(broken) or type(broken).__name__, ""
        raise Retryable(
            f"Kubernetes at {self.host} could not be asked to {request.verb} {request.kind.right} "
            f"in namespace '{request.namespace}': {cause}",
            float(after) if after.isdecimal() else 0.0,
        )


class Retryable(Unreachable):
    """A request that may be retried, not before `after_s` seconds."""

    def __init__(self, message: str, after_s: float) -> None:
        super().__init__(message)
        self.after_s = after_s


def login(namespace: str | None) -> tuple[Any, str, bool]:
    """Return the ApiClient, the namespace, and whether this process is a pod of that cluster.

    The cluster: KUBECONFIG, else the one this pod runs in, else ~/.kube/config. The namespace: the
    given one, else MOAA_NAMESPACE, else the service account's, else the context's. Raises
    ClusterError: NoCluster if this machine is set up for none.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise _no_client(
            f"the Kubernetes client is not installed: {install_command('moaa[kubernetes]')}"
        ) from None
    settings = client.Configuration()
    inside = (
        not os.environ.get("KUBECONFIG")
        and "KUBERNETES_SERVICE_HOST" in os.environ
        and (_ACCOUNT / "token").exists()
    )
    try:
        if inside:
            config.load_incluster_config(settings)
            own = (_ACCOUNT / "namespace").read_text().strip()
            settings.refresh_api_key_hook = _read_token
        else:
            config.load_kube_config(client_configuration=settings)
            own = config.list_kube_config_contexts()[1]["context"].get("namespace")
    except (config.ConfigException, OSError) as error:
        raise _no_client(
            f"no Kubernetes cluster is configured: {without_stop(error)}. Set KUBECONFIG (or "
            "~/.kube/config) and its current context, or run in a pod that has a service "
            "account's token."
        ) from None
    settings.retries = False
    chosen = namespace or os.environ.get("MOAA_NAMESPACE") or own or "default"
    return client.ApiClient(settings), chosen, inside


def _no_client(problem: str) -> ClusterError:
    """Return the error: NoCluster if this machine is set up for no cluster, as
    `KUBECONFIG=/dev/null` says."""
    if named := os.environ.get("KUBECONFIG"):
        configured = named != os.devnull
    else:
        configured = (
            "KUBERNETES_SERVICE_HOST" in os.environ or (Path.home() / ".kube" / "config").exists()
        )
    return ClusterError(problem) if configured else NoCluster(problem)


def _read_token(settings: Any) -> None:
    """Read the token before each request. The kubelet replaces the file long before the token
    expires, and the client's own hook uses the wall clock to decide when to read it."""
    with contextlib.suppress(OSError):  # the last one may still be valid
        settings.api_key["authorization"] = f"bearer {(_ACCOUNT / 'token').read_text().strip()}"


def lines(stream: HTTPResponse) -> Iterator[bytes]:
    """Yield the lines of an open stream as they come.

    Raises Unreachable when the connection breaks.
    """
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


def _may_heal(request: Request, status: int, message: str, reason: str) -> bool:
    if status == 409:  # a quota that changed at the same moment; not `AlreadyExists`
        return request.method == "POST" and reason != "AlreadyExists"
    if not status:  # TLS failed: the server is stopping, unless it is the certificate
        return "CERTIFICATE" not in message
    return status == 429 or status >= 500
