"""Whether the run's service account may do what the run does: asked of the API server, one question
for each right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Forbidden
from moaa.kubernetes.kinds import (
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    PODS,
    SERVICES,
    SLICES,
    TRAIN_JOBS,
    Kind,
)
from moaa.preflight.finding import Finding, unseen
from moaa.preflight.kinds import MY_REVIEWS, REVIEWS
from moaa.recipe.schema import Recipe

LOGS: Final = Kind("v1", "pods/log", "Pod log")
_LOOK = ("get", "list", "watch")
_ENGINES: Final = ((DEPLOYMENTS, (*_LOOK, "patch")), (SLICES, ("list", "watch")))
_TRAININGS: Final = ("create", *_LOOK, "patch", "delete")
_FOLLOWING: Final = ((PODS, _LOOK), (LOGS, ("get",)), (EVENTS, ("list",)))
FIX: Final = "install the moaa-platform chart in this namespace, and run under the service account that it makes"


def needed(recipe: Recipe, trainings: Kind | None) -> list[tuple[Kind, tuple[str, ...]]]:
    """The rights of a run. `trainings`: the kind that trainings are, None where they are processes."""
    found: list[tuple[Kind, tuple[str, ...]]] = []
    if recipe.runtime.engines.kind == "kubernetes":
        found += _ENGINES
    if trainings in (TRAIN_JOBS, JOBS):
        found.append((trainings, _TRAININGS))
    if trainings is JOBS and recipe.runtime.launcher.nodes > 1:
        found.append((SERVICES, ("create",)))
    return [*found, *_FOLLOWING] if found else []


def findings(recipe: Recipe, cluster: Cluster, trainings: Kind | None) -> Iterator[Finding]:
    """One finding for each kind of object. In a pod its own account is asked about; elsewhere the
    recipe's."""
    account = recipe.runtime.cluster.service_account
    who = "this pod's account" if cluster.inside else f"the account '{account}'"
    for kind, verbs in needed(recipe, trainings):
        try:
            missing = [
                verb
                for verb in verbs
                if not (
                    _allowed(cluster, account, kind, verb) or _each(cluster, account, kind, verb)
                )
            ]
        except Forbidden:
            yield unseen(
                "rights",
                f"what {who} may do cannot be asked from here; the run's own preflight asks",
            )
            return
        what = f"{kind.right} in namespace '{cluster.namespace}'"
        if missing:
            jobs = (
                " For Indexed Jobs it needs trainer.enabled=false."
                if kind in (JOBS, SERVICES)
                else ""
            )
            yield Finding(
                "rights",
                False,
                f"{who} may not {', '.join(missing)} {what}",
                f"{FIX}.{jobs}" if jobs else FIX,
            )
        else:
            yield Finding("rights", True, f"{who} may {', '.join(verbs)} {what}")


def _each(cluster: Cluster, account: str, kind: Kind, verb: str) -> bool:
    """Whether it may patch each of the ensemble's Deployments by name: the platform chart can limit
    the right to these."""
    if (kind, verb) != (DEPLOYMENTS, "patch"):
        return False
    try:
        found = [each["metadata"]["name"] for each in cluster.list(DEPLOYMENTS, names.MODEL)]
    except Forbidden:  # who may not list them; that right is a finding of its own
        return False
    return bool(found) and all(_allowed(cluster, account, kind, verb, name) for name in found)


def _allowed(cluster: Cluster, account: str, kind: Kind, verb: str, name: str = "") -> bool:
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
    if not cluster.inside:
        review, metadata = REVIEWS, {"namespace": cluster.namespace}
        asked["user"] = f"system:serviceaccount:{cluster.namespace}:{account}"
        # A real login has these groups too, and a Role may be bound to them.
        asked["groups"] = [
            "system:authenticated",
            "system:serviceaccounts",
            f"system:serviceaccounts:{cluster.namespace}",
        ]
    body = {"apiVersion": review.version, "kind": review.name, "metadata": metadata, "spec": asked}
    return bool(cluster.create(review, body)["status"].get("allowed"))
