"""Who uses an engine or a training, and until when.

Arithmetic on the annotation `moaa.dev/leases`, without I/O:

    patch = leases.add(annotations, holder, time.time())       # new or renewed
    patch = leases.release(annotations, holder, time.time())   # {annotation: value}, for a patch
    if not leases.live(annotations, time.time()): ...          # nobody uses it

Each change also drops expired leases, so those of a crashed run are removed by the next user. Write
the new value only over the version that was read (`api.Cluster.update` does).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from moaa.errors import MoaaError
from moaa.kubernetes.names import IDLE_REPLICAS, LEASES, REPLICAS

LEASE_S: Final = 120.0
RENEW_EVERY_S: Final = 30.0
"""Three renewals may fail before a lease runs out."""


def read(annotations: Mapping[str, str]) -> dict[str, float]:
    """Return all leases, {holder: unix seconds at which it ends}.

    Raises MoaaError if the annotation has another form.
    """
    text = annotations.get(LEASES) or "{}"
    try:
        found = json.loads(text)
        return {str(holder): float(end) for holder, end in found.items()}
    except (ValueError, AttributeError, TypeError):
        raise MoaaError(
            f"the annotation {LEASES} holds '{text[:200]}', not JSON {{holder: unix seconds}}: "
            "something else wrote it. Remove it "
            f"(kubectl annotate KIND NAME {LEASES}-) when no run uses the object."
        ) from None


def live(annotations: Mapping[str, str], now: float) -> dict[str, float]:
    """Return the leases that have not expired."""
    return {holder: end for holder, end in read(annotations).items() if end > now}


def add(annotations: Mapping[str, str], holder: str, now: float) -> dict[str, str]:
    """Return the annotation with a lease of this holder, new or renewed, for LEASE_S from now."""
    return _written(live(annotations, now) | {holder: round(now + LEASE_S, 3)})


def release(annotations: Mapping[str, str], holder: str, now: float) -> dict[str, str]:
    """Return the annotation without this holder's lease; `{}` if no lease is left."""
    return _written(
        {other: end for other, end in live(annotations, now).items() if other != holder}
    )


def expire(annotations: Mapping[str, str], now: float) -> dict[str, str]:
    """Return the annotation without expired leases."""
    return _written(live(annotations, now))


def release_run(annotations: Mapping[str, str], run_id: str, now: float) -> dict[str, str]:
    """Return the annotation without the leases of this run's stages."""
    mine = of_run(annotations, run_id)
    return _written(
        {other: end for other, end in live(annotations, now).items() if other not in mine}
    )


def of_run(annotations: Mapping[str, str], run_id: str) -> set[str]:
    """Return the holders that are stages of this run; expired leases count too."""
    return {holder for holder in read(annotations) if holder.startswith(f"{run_id}/")}


def patch(deployment: Mapping[str, Any], change: Mapping[str, str], now: float) -> dict[str, Any]:
    """Return the merge patch that writes a changed annotation and scales the Deployment to fit."""
    annotations = {**(deployment["metadata"].get("annotations") or {}), **change}
    replicas = deployment["spec"].get("replicas", 1)
    wanted = scaled(annotations, replicas, now)
    return {
        "metadata": {"annotations": dict(change)},
        **({"spec": {"replicas": wanted}} if wanted != replicas else {}),
    }


def scaled(annotations: Mapping[str, str], replicas: int, now: float) -> int:
    """Return how many replicas a serving Deployment should have; it has `replicas` now."""
    if live(annotations, now):
        return max(replicas, count(annotations, REPLICAS, 1))
    return min(replicas, count(annotations, IDLE_REPLICAS, 0))


def count(annotations: Mapping[str, str], name: str, missing: int) -> int:
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


def _written(found: Mapping[str, Any]) -> dict[str, str]:
    return {LEASES: json.dumps(found, separators=(",", ":"), sort_keys=True)}
