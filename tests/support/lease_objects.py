"""Leases on a KubeServer: those of others, and who holds an object."""

from __future__ import annotations

from moaa.kubernetes import leases
from moaa.kubernetes.kinds import LEASES, Kind
from tests.support.kube_server import KubeServer


def hold(kube: KubeServer, kind: Kind, name: str, *holders: str) -> None:
    """A lease of each holder, taken or renewed now."""
    for holder in holders:
        leases.Lease(kube.cluster(), kind, name, holder).renew()


def holders(kube: KubeServer, kind: Kind, name: str) -> list[str]:
    """Who has a lease on the object."""
    return sorted(
        leases.holder_of(each)
        for (plural, _), each in list(kube.objects.items())
        if plural == LEASES.plural and leases.target_of(each) == f"{kind.name}/{name}"
    )


class Clock:
    """A monotonic clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now
