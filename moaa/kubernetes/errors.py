"""Refusals of the API server, as errors that say what to do.

ClusterError
├── Unreachable   no answer, or only errors that may pass
├── Forbidden     401, 403: who lacks which right
├── NotFound      404: no such object, or the cluster does not know this kind
├── Conflict      409: another process changed it, or it exists already
└── Gone          410: a list or watch started from a version that is too old
"""

from __future__ import annotations

import json
import re
from typing import Any

from moaa.errors import ClusterError
from moaa.kubernetes.request import Request

_RBAC = re.compile(r'User "(?P<user>[^"]*)" cannot \w+ resource "(?P<resource>[^"]*)"')


class NoCluster(ClusterError):
    """No cluster is configured on this machine."""


class Unreachable(ClusterError):
    """The API server did not answer, or only with errors that may pass."""

    outside = True


class Forbidden(ClusterError):
    """The login is not accepted, or lacks a right."""


class NotFound(ClusterError):
    """No object has this name, or the cluster does not know this kind of object."""


class Conflict(ClusterError):
    """Another process changed the object, or an object of this name exists."""


class Gone(ClusterError):
    """A list or watch started from a version that is too old: list again."""


def refusal(request: Request, host: str, status: int, message: str) -> ClusterError:
    """Return the error for an HTTP status that no retry helps.

    `message`: the API server's own. Status 0: TLS failed.
    """
    kind, what = request.kind, request.what
    where = f"in namespace '{request.namespace}'"
    if status == 0:
        return ClusterError(
            f"no trusted connection to Kubernetes at {host}: {message} "
            "Check certificate-authority in KUBECONFIG."
        )
    if status == 401:
        return Forbidden(
            f"Kubernetes at {host} does not accept this login (HTTP 401, to {request.verb} "
            f"{what}). Log in again: the token has expired, or KUBECONFIG is another cluster's."
        )
    if status == 403 and (rbac := _RBAC.search(message)):
        right = rbac["resource"] if "/" in rbac["resource"] else kind.right
        return Forbidden(
            f"the account '{rbac['user']}' may not {request.verb} {right} {where}: its Role lacks "
            "this right. Use the service account that the moaa-platform chart creates, or add the "
            "right to that Role."
        )
    if status == 404:
        if request.name:
            return NotFound(f"there is no {what} {where}.")
        return NotFound(
            f"the cluster does not know {kind.right} ({kind.version}), or has no namespace "
            f"'{request.namespace}'."
        )
    if status == 409:
        return Conflict(f"{what} {where}: {message}")
    if status == 410:
        return Gone(f"{what} {where}: {message}")
    return ClusterError(
        f"Kubernetes refuses to {request.verb} {what} {where} (HTTP {status}): {message}"
    )


def status_of(body: bytes | str | None) -> tuple[str, str]:
    """Return message and reason of an answer's Status document; its text if it is not one."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        status: Any = json.loads(text)
        return str(status["message"]), str(status.get("reason", ""))
    except (ValueError, KeyError, TypeError):
        return text.strip()[:300] or "no message", ""
