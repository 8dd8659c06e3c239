"""A promoted model on a KubeServer that starts and ends pods, and whose pods read their pointer."""

from __future__ import annotations

import json
from typing import Any

from moaa.gateway.places import place_of, slots_of
from moaa.gateway.promotion import Promotion
from moaa.gateway.slots import Slots, pointed
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, EVENTS, SLICES, Object
from moaa.kubernetes.names import IDLE_REPLICAS, POINTERS, PROMOTED, SLOTS
from moaa.recipe.promote import Promote
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import Clock
from tests.support.memory_store import MemoryStore

ROOT = "s3://memory/root"
V1, V2, V3 = (f"{ROOT}/models/v{n}" for n in (1, 2, 3))


class World:
    """A promoted model on a KubeServer; time passes only while somebody sleeps."""

    def __init__(self, kube: KubeServer, *, starts: bool = True) -> None:
        self.kube, self.store, self.clock = kube, MemoryStore(ROOT), Clock()
        for version in (V1, V2, V3):
            self.store.put(f"{version}/config.json", b"{}")
            self.store.put(f"{version}/model.safetensors", b"0")
        slots = {slot: f"ens-aligned-{slot}" for slot in "ab"}
        annotations = {SLOTS: json.dumps(slots), POINTERS: f"{ROOT}/pointers/aligned"}
        labels = {PROMOTED: "aligned"}
        metadata = {"name": "ens-aligned", "labels": labels, "annotations": annotations}
        kube.put(CONFIG_MAPS, {"metadata": metadata})
        for slot, name in slots.items():
            kube.put(
                DEPLOYMENTS, deployment(name, f"aligned-{slot}", annotations={IDLE_REPLICAS: "0"})
            )
        kube.after_patch = self._follow
        self.starts = starts
        """Whether pods become ready."""
        self.serving: dict[str, str] = {}
        """What the pods of each slot that is up have read from their pointer when they started."""
        self.at: list[tuple[float, Any]] = []
        """What others do meanwhile: when, and what."""

    @property
    def cluster(self) -> Cluster:
        return self.kube.cluster()

    @property
    def promotion(self) -> Promotion:
        place = place_of(self.cluster, "aligned")
        return Promotion(self.cluster, place, self.sleep, self.clock)

    @property
    def state(self) -> Slots:
        return slots_of(self.cluster, place_of(self.cluster, "aligned"))

    def events(self) -> list[Object]:
        return self.cluster.list(EVENTS)

    def replicas(self, slot: str) -> int:
        return int(self.kube.find(DEPLOYMENTS, f"ens-aligned-{slot}")["spec"]["replicas"])

    def sleep(self, seconds: float) -> None:
        self.clock.now += seconds
        due = [each for each in self.at if each[0] <= self.clock.now]
        self.at = [each for each in self.at if each not in due]
        for _, act in due:
            act()

    def _follow(self, changed: Object) -> None:
        """The part of the cluster that starts and ends pods."""
        name = changed["metadata"]["name"]
        if "replicas" in changed.get("spec", {}):
            self._read_pointer(name[-1], changed["spec"]["replicas"])
            ready = self.starts and changed["spec"]["replicas"]
            found = [{"addresses": ["10.0.0.1"]}] if ready else []
            labels = {"kubernetes.io/service-name": name}
            self.kube.put(
                SLICES, {"metadata": {"name": f"{name}-x", "labels": labels}, "endpoints": found}
            )

    def _read_pointer(self, slot: str, replicas: int) -> None:
        if not replicas:
            self.serving.pop(slot, None)
        elif slot not in self.serving:
            uri = f"{ROOT}/pointers/aligned/{slot}.json"
            self.serving[slot] = pointed(self.store.get(uri).decode(), uri)

    def restart(self, slot: str) -> None:
        """Let the pods of a slot start again, as after the loss of a node."""
        self.serving.pop(slot, None)
        self._read_pointer(slot, 1)


def promoted(world: World, *versions: str, hold_s: float = 60) -> None:
    for version in versions:
        world.promotion.promote(world.store, version, Promote(hold_s=hold_s))
