"""What the API server refuses, as errors that say what to do.

ClusterError
├── Unreachable   nobody answered, or only with errors that should have healed
├── Forbidden     401, 403: who lacks which right
├── NotFound      404: no such object, or the cluster does not know this kind
├── Conflict      409: changed meanwhile, or there already
└── Gone          410: a list or watch went on from a version that is too old
"""

from __future__ import annotations

import json
import re
from typing import Any

from moaa.errors import ClusterError
from moaa.kubernetes.kinds import Kind

_RBAC = re.compile(r'User "(?P<user>[^"]*)" cannot \w+ resource "(?P<resource>[^"]*)"')


class Unreachable(ClusterError):
    pass


class Forbidden(ClusterError):
    pass


class NotFound(ClusterError):
    pass


class Conflict(ClusterError):
    pass


class Gone(ClusterError):
    pass


def refusal(
    status: int, message: str, verb: str, kind: Kind, name: str, namespace: str, host: str
) -> ClusterError:
    """The error for an HTTP status that no retry heals; `message` is the API server's own. Status
    0: TLS failed."""
    what = f"{kind.name} '{name.removesuffix('/log')}'" if name else kind.plural
    where = f"in namespace '{namespace}'"
    if status == 0:
        return ClusterError(
            f"no trusted connection to Kubernetes at {host}: {message} Check "
            "certificate-authority in KUBECONFIG."
        )
    if status == 401:
        return Forbidden(
            f"Kubernetes at {host} does not accept this login (HTTP 401, to {verb} {what}). Log "
            "in again: the token has run "
            "out, or KUBECONFIG is another cluster's."
        )
    if status == 403 and (rbac := _RBAC.search(message)):
        right = rbac["resource"] if "/" in rbac["resource"] else kind.right
        return Forbidden(
            f"the account '{rbac['user']}' may not {verb} {right} {where}: its Role lacks this "
            "right. Run under the service "
            "account that the moaa-platform chart makes, or have it added to that Role."
        )
    if status == 404:
        if name:
            return NotFound(f"there is no {what} {where}.")
        return NotFound(
            f"the cluster does not know {kind.right} ({kind.version}), or has no namespace "
            f"'{namespace}'."
        )
    if status == 409:
        return Conflict(f"{what} {where}: {message}")
    if status == 410:
        return Gone(f"{what} {where}: {message}")
    return ClusterError(f"Kubernetes refuses to {verb} {what} {where} (HTTP {status}): {message}")


def status_of(body: bytes | str | None) -> tuple[str, str]:
    """Message and reason in an answer's Status document; its text where it is none."""
    text = body.decode(errors="replace") if isinstance(body, bytes) else body or ""
    try:
        status: Any = json.loads(text)
        return str(status["message"]), str(status.get("reason", ""))
    except (ValueError, KeyError, TypeError):
        return text.strip()[:300] or "no message", ""
