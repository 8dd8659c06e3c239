"""A reaper that looks when it is told to, and what it looks at."""

from __future__ import annotations

from typing import Any

from moaa.kubernetes import names
from moaa.kubernetes.kinds import DEPLOYMENTS, Kind
from moaa.kubernetes.leases import Observer
from moaa.kubernetes.reaper import Reaper
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import Clock


def job(name: str, *, status: dict[str, Any] | None = None, **labels: str) -> dict[str, Any]:
    trains = names.work_labels("r", "sft") | {names.TRAINING: name} | labels
    return {"metadata": {"name": name, "labels": trains}, "status": status or {}}


def put(kube: KubeServer, kind: Kind, name: str) -> None:
    """An engine that is up, or a training at work."""
    kube.put(kind, deployment(name, name, replicas=1) if kind is DEPLOYMENTS else job(name))


def there(kube: KubeServer, kind: Kind) -> set[str]:
    return {name for plural, name in kube.objects if plural == kind.plural}


def replicas(kube: KubeServer, name: str) -> int:
    return int(kube.find(DEPLOYMENTS, name)["spec"]["replicas"])


class Watching:
    """A reaper whose clock a test moves."""

    def __init__(self, kube: KubeServer, *, dry_run: bool = False) -> None:
        self.clock = Clock()
        self.reaper = Reaper(kube.cluster(), Observer(self.clock), dry_run=dry_run)

    def looks(self, after_s: float = 0.0) -> list[str]:
        self.clock.now += after_s
        return sorted(self.reaper.look())

    def watches(self, for_s: float) -> list[str]:
        """Looks every ten seconds; what was said."""
        self.looks()
        return [line for _ in range(int(for_s / 10)) for line in self.looks(10)]
