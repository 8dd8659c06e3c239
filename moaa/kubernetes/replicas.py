"""How many replicas a served model has, with a lease and without one.

Only the number is written, with the `scale` subresource: our accounts may not change Deployments.
"""

from __future__ import annotations

from collections.abc import Mapping

from moaa.errors import MoaaError
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, Object
from moaa.kubernetes.names import IDLE_REPLICAS, REPLICAS


def scale(
    cluster: Cluster,
    name: str,
    *,
    leased: bool,
    known: Object | None = None,
    retry_s: float | None = None,
) -> tuple[int, int]:
    """Scale a Deployment to what its leases need; return its replicas before and after.

    `known`: a copy that may be the newest, which saves a read.
    """
    numbers = (0, 0)

    def change(deployment: Object) -> Object | None:
        nonlocal numbers
        numbers = (deployment["spec"].get("replicas", 1), wanted(deployment, leased=leased))
        return {"spec": {"replicas": numbers[1]}} if numbers[0] != numbers[1] else None

    if known is not None and change(known) is None:  # the copy may be old
        known = None
    cluster.update(DEPLOYMENTS, name, change, known=known, part="scale", retry_s=retry_s)
    return numbers


def wanted(deployment: Object, *, leased: bool) -> int:
    """Return how many replicas a serving Deployment should have."""
    now_has: int = deployment["spec"].get("replicas", 1)
    annotations = deployment["metadata"].get("annotations") or {}
    if leased:
        return max(now_has, _count(annotations, REPLICAS, 1))
    return min(now_has, _count(annotations, IDLE_REPLICAS, 0))


def _count(annotations: Mapping[str, str], name: str, missing: int) -> int:
    """Return the number in an annotation; `missing` if there is no such annotation."""
    text = annotations.get(name)
    if text is None:
        return missing
    if not text.isdecimal():
        raise MoaaError(
            f"the annotation {name} is '{text}', not a number of replicas. Correct it in the "
            "chart's values."
        )
    return int(text)
