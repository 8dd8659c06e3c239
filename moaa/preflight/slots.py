"""Checks that the slots for the promotion exist and may be changed, before anything is paid: the
stage promote comes last."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from moaa.declaration import Declaration
from moaa.errors import ClusterError, MoaaError
from moaa.gateway.places import PromotedDeployment, place_of, slots_of
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Forbidden
from moaa.kubernetes.kinds import (
    CONFIG_MAPS,
    DEPLOYMENTS,
    EVENTS,
    LEASES,
    PODS,
    SERVICES,
    SLICES,
    Kind,
)
from moaa.preflight import rights
from moaa.preflight.finding import Finding, unseen
from moaa.recipe.schema import Recipe

CHECK: Final = "slots"
POINTER: Final = "or leave promote.slots out: then only the production pointer moves"
REACHED: Final = f"correct KUBECONFIG, or connect to the cluster's network; {POINTER}"
THERE: Final = (
    "install moaa-serving with this name under `promoted`, or correct promote.slots and "
    f"promote.namespace; {POINTER}"
)
MAY: Final = "name the account under `promotedBy` in the values of moaa-serving"


def wanted(recipe: Recipe, stages: Sequence[Declaration]) -> bool:
    """Return whether the run puts a version into slots."""
    return bool(recipe.promote and recipe.promote.slots) and any(
        stage.name == "promote" for stage in stages
    )


def findings(recipe: Recipe, *, in_pods: bool) -> Iterator[Finding]:
    """Yield whether the slots exist, and whether the account that promotes may change them.

    `in_pods`: the stages run in pods, and this machine is not one of them; their account may see
    more.
    """
    given = recipe.promote
    assert given
    assert given.slots
    try:
        own = Cluster.connect(recipe.runtime.cluster.namespace)
        cluster = Cluster.connect(given.namespace) if given.namespace else own
        cluster.date()
    except ClusterError as error:
        yield Finding(CHECK, False, str(error), REACHED)
        return
    try:
        place = place_of(cluster, given.slots)
        state = slots_of(cluster, place)
    except Forbidden as error:
        if in_pods:
            yield unseen(CHECK, f"{error} The run's own preflight checks it.")
        else:
            yield Finding(CHECK, False, str(error), MAY)
        return
    except MoaaError as error:
        yield Finding(CHECK, False, str(error), THERE)
        return
    serves = state.slots[state.production].revision or "no version yet"
    slots = " and ".join(place.deployments.values())
    yield Finding(CHECK, True, f"{place.name}: {slots} exist; in production: {serves}")
    account = rights.ServiceAccount(recipe.runtime.cluster.service_account, own.namespace)
    yield _rights(cluster, place, account if in_pods else None)


def _rights(
    cluster: Cluster, place: PromotedDeployment, account: rights.ServiceAccount | None
) -> Finding:
    """Return whether the account has the rights for a promotion. None:
    this process's own account."""
    who = account or "this account"
    try:
        missing = [
            f"{verb} {kind.right}{f' {name}' if name else ''}"
            for kind, verbs, name in _needed(place)
            for verb in verbs
            if not rights.allowed(cluster, account, kind, verb, name)
        ]
    except Forbidden:
        return unseen(CHECK, f"the rights of {who} cannot be checked; the run's own preflight does")
    if missing:
        where = f"in namespace '{cluster.namespace}'"
        return Finding(CHECK, False, f"{who} may not {', '.join(missing)} {where}", MAY)
    return Finding(CHECK, True, f"{who} may promote to {place.name}")


def _needed(place: PromotedDeployment) -> Iterator[tuple[Kind, tuple[str, ...], str]]:
    """Yield kinds, verbs, and the object's name if the right is limited to one object."""
    yield CONFIG_MAPS, ("get", "patch"), place.config_map
    for deployment in place.deployments.values():
        yield rights.SCALE, ("patch",), deployment
    if place.service:
        yield SERVICES, ("patch",), place.service
    yield DEPLOYMENTS, ("get", "list"), ""
    yield LEASES, rights.LEASE, ""
    for kind, verb in ((PODS, "list"), (SLICES, "list"), (EVENTS, "create")):
        yield kind, (verb,), ""
