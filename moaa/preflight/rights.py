"""Checks whether the run's service account has the rights that the run needs.

The API server answers one question for each right.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Forbidden
from moaa.kubernetes.kinds import (
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    LEASES,
    PODS,
    SERVICES,
    SLICES,
    TRAIN_JOBS,
    Kind,
)
from moaa.preflight.finding import Finding, unseen
from moaa.preflight.kinds import MY_REVIEWS, REVIEWS
from moaa.recipe.schema import Recipe
from moaa.sandbox import run

LOGS: Final = Kind("v1", "pods/log", "Pod log")
SCALE: Final = Kind("apps/v1", "deployments/scale", "Scale")
_READ = ("get", "list", "watch")
_ENGINES: Final = (
    (DEPLOYMENTS, _READ),
    (SCALE, ("patch",)),
    (SLICES, ("list", "watch")),
)
LEASE: Final = ("create", "get", "list", "patch", "delete")
"""The verbs that a run uses on leases."""
_TRAININGS: Final = ("create", *_READ, "patch", "delete")
_FOLLOWING: Final = ((PODS, _READ), (LOGS, ("get",)), (EVENTS, ("list",)))
FIX: Final = (
    "install the moaa-platform chart in this namespace, and use the service account that it creates"
)


@dataclass(frozen=True, slots=True)
class ServiceAccount:
    """A service account."""

    name: str
    namespace: str

    def __str__(self) -> str:
        return f"the account '{self.name}'"


def needed(recipe: Recipe, trainings: Kind | None) -> list[tuple[Kind, tuple[str, ...]]]:
    """Return the rights that a run needs. `trainings`: their kind; None if they are processes."""
    found: list[tuple[Kind, tuple[str, ...]]] = []
    if recipe.runtime.engines.kind == "kubernetes":
        found += _ENGINES
    if trainings in (TRAIN_JOBS, JOBS):
        found.append((trainings, _TRAININGS))
    if trainings is JOBS and recipe.runtime.launcher.nodes > 1:
        found.append((SERVICES, ("create",)))
    if recipe.evaluate.benchmarks.humaneval and not run.why_not(recipe.runtime):
        found.append((JOBS, ("create", "get", "delete")))
    return [*found, (LEASES, LEASE), *_FOLLOWING] if found else []


def findings(recipe: Recipe, cluster: Cluster, trainings: Kind | None) -> Iterator[Finding]:
    """Yield one finding for each kind of object.

    It is about this pod's account, or, outside of the cluster, about the recipe's.
    """
    account = None
    if not cluster.inside:
        account = ServiceAccount(recipe.runtime.cluster.service_account, cluster.namespace)
    who = account or "this pod's account"
    for kind, verbs in needed(recipe, trainings):
        try:
            missing = [verb for verb in verbs if not _may(cluster, account, kind, verb)]
        except Forbidden:
            detail = (
                f"the rights of {who} cannot be checked from here; the run's own preflight does"
            )
            yield unseen("rights", detail)
            return
        what = f"{kind.right} in namespace '{cluster.namespace}'"
        if missing:
            fix = FIX
            if kind in (JOBS, SERVICES):
                fix += ". For Indexed Jobs it needs trainer.enabled=false, for HumanEval "
                fix += "sandbox.enabled=true."
            yield Finding("rights", False, f"{who} may not {', '.join(missing)} {what}", fix)
        else:
            yield Finding("rights", True, f"{who} may {', '.join(verbs)} {what}")


def _may(cluster: Cluster, account: ServiceAccount | None, kind: Kind, verb: str) -> bool:
    """Return whether the account has this right to all objects of the kind.

    The platform chart may limit the right to scale to the ensemble's Deployments: that is enough.
    """
    if allowed(cluster, account, kind, verb):
        return True
    if kind is not SCALE:
        return False
    try:
        found = [each["metadata"]["name"] for each in cluster.list(DEPLOYMENTS, names.MODEL)]
    except Forbidden:  # the right to list is another finding
        return False
    # Without a Deployment the limits of the right are not known; that is another finding.
    return all(allowed(cluster, account, kind, verb, name) for name in found)


def allowed(
    cluster: Cluster, account: ServiceAccount | None, kind: Kind, verb: str, name: str = ""
) -> bool:
    """Return whether the account may do this, to all objects of the kind or to one.

    None: this process's own account. Raises Forbidden if the process may not ask.
    """
    resource, _, sub = kind.plural.partition("/")
    asked: dict[str, Any] = {
        "resourceAttributes": {
            "namespace": cluster.namespace,
            "verb": verb,
            "group": kind.version.rpartition("/")[0],
            "resource": resource,
            "subresource": sub,
            "name": name,
        }
    }
    review: Kind = MY_REVIEWS
    metadata: dict[str, str] = {}
    if account is not None:
        review, metadata = REVIEWS, {"namespace": cluster.namespace}
        asked["user"] = f"system:serviceaccount:{account.namespace}:{account.name}"
        # The account has these groups, and a Role may be bound to one of them.
        asked["groups"] = [
            "system:authenticated",
            "system:serviceaccounts",
            f"system:serviceaccounts:{account.namespace}",
        ]
    body = {"apiVersion": review.version, "kind": review.name, "metadata": metadata, "spec": asked}
    return bool(cluster.create(review, body)["status"].get("allowed"))
