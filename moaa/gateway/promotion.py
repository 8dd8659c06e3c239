"""Promotes a version of a model on the cluster, and rolls it back.

A promotion writes the idle slot's pointer, starts the slot, and raises its share in steps; each
step is held. Whoever takes the share away meanwhile (the gateway's guard, a person) ends it. What
it changes on the cluster are the shares' ConfigMap, its own Lease and the slots' replicas.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from moaa.engines.deployment import addresses
from moaa.errors import MoaaError
from moaa.gateway.discovery import SERVICE, start_s
from moaa.gateway.promoted import now
from moaa.gateway.slots import SLOTS, Slots, other, pointer_text
from moaa.kubernetes import leases, names, pods, replicas
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, PODS, SLICES, Object
from moaa.progress.messages import say
from moaa.store import Store

LOOK_EVERY_S: Final = 1.0


class RolledBack(MoaaError):
    """The new version lost its share before the promotion was over."""

    @property
    def exit_status(self) -> int:
        return 3


@dataclass(frozen=True, slots=True)
class Place:
    """A promoted model on the cluster."""

    name: str
    config_map: str
    deployments: dict[str, str]
    """By slot; the Services have the same names."""
    pointers: str

    def pointer(self, slot: str) -> str:
        """The address of a slot's pointer."""
        return f"{self.pointers.rstrip('/')}/{slot}.json"


def places(cluster: Cluster) -> dict[str, Place]:
    """Return the promoted models of the namespace by name."""
    return {each.name: each for each in map(_place, cluster.list(CONFIG_MAPS, names.PROMOTED))}


def place_of(cluster: Cluster, name: str) -> Place:
    """Return the promoted model of this name. Raises MoaaError if there is none."""
    found = places(cluster)
    if name not in found:
        there = ", ".join(sorted(found)) or "none"
        raise MoaaError(
            f"there is no promoted model '{name}' in namespace '{cluster.namespace}' (there: "
            f"{there}). Name it under `promoted` in the values of moaa-serving."
        )
    return found[name]


def slots_of(cluster: Cluster, place: Place) -> Slots:
    """Return the state of a promoted model."""
    return Slots.of(cluster.get(CONFIG_MAPS, place.config_map).get("data") or {})


def up(cluster: Cluster, service: str) -> int:
    """Return how many pods of a slot are ready."""
    return len(addresses(cluster.list(SLICES, f"{SERVICE}={service}")))


@dataclass(eq=False)
class Promotion:
    """One promotion or roll-back under way."""

    cluster: Cluster
    place: Place
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic

    def promote(self, store: Store, source: str, steps: Sequence[int], hold_s: float) -> Slots:
        """Put a version into production; return the state after it.

        `steps`: its shares in per cent, one after the other; the last is 100. Raises RolledBack if
        it loses its share, MoaaError if it does not start.
        """
        source = source.rstrip("/")
        check_version(store, source)
        slots = slots_of(self.cluster, self.place)
        if slots.slots[slots.candidate].share:
            raise MoaaError(
                f"a promotion of '{self.place.name}' is under way: slot {slots.candidate} has "
                f"{slots.slots[slots.candidate].share} %. Wait for it, or `moaa rollback "
                f"{self.place.name}`."
            )
        first = not slots.slots[slots.production].source
        slot = slots.production if first else slots.candidate
        store.put(self.place.pointer(slot), pointer_text(source).encode())
        revision = self._change(lambda state: state.holding(slot, source)).slots[slot].revision
        say(f"{self.place.name}: slot {slot} gets {revision} ({source})")
        with_lease = _Leased(self.cluster, self.place.deployments[slot])
        try:
            self._restart(slot, with_lease)
            if first:
                return self._change(lambda state: state.sharing(0, "the first version", now()))
            before = 0
            for share in steps:
                self._share(before, share, revision, hold_s, with_lease)
                before = share
            words = f"promoted: {revision} held {before} % for {hold_s:.0f} s"

            def finish(state: Slots) -> Slots:
                self._check_share(state, before, revision)
                return state.promoted(words, now())

            return self._change(finish)
        finally:
            # The gateway holds the slots with a share; the others go to sleep.
            with_lease.end(scale_down=not slots_of(self.cluster, self.place).slots[slot].share)

    def roll_back(self, reason: str) -> Slots:
        """Give all conversations to the slot that had them before; return the state after it."""
        slots = slots_of(self.cluster, self.place)
        bad = slots.candidate if slots.slots[slots.candidate].share else slots.production
        target = other(bad)
        if not slots.slots[target].source:
            raise MoaaError(
                f"'{self.place.name}' has no other version to go back to: slot {target} is empty."
            )
        with_lease = _Leased(self.cluster, self.place.deployments[target])
        try:
            if not up(self.cluster, self.place.deployments[target]):
                say(f"{self.place.name}: slot {target} is cold: it is started first")
                with_lease.renew(scale=True)
                self._wait_until_up(target, with_lease)
            return self._change(lambda state: state.rolled_back(reason, now()))
        finally:
            with_lease.end(scale_down=False)

    def _restart(self, slot: str, lease: _Leased) -> None:
        """Pods read the pointer when they start: those of an earlier version are ended first."""
        lease.renew(scale=False)
        deployment = self.place.deployments[slot]
        self.cluster.update(
            DEPLOYMENTS,
            deployment,
            lambda found: {"spec": {"replicas": 0}} if found["spec"].get("replicas", 1) else None,
            part="scale",
        )
        self._wait(lambda: not self._pods(deployment), 600, lease, f"slot {slot} did not stop")
        lease.renew(scale=True)
        self._wait_until_up(slot, lease)

    def _wait_until_up(self, slot: str, lease: _Leased) -> None:
        deployment = self.place.deployments[slot]
        limit_s = start_s(self.cluster.get(DEPLOYMENTS, deployment)) + 60
        began = self.clock()

        def problem() -> str:
            found = self._pods(deployment)
            words = pods.summary(pods.waits_for(each, time.time()) for each in found)
            return f"slot {slot} did not start within {limit_s:.0f} s ({words or 'no pod'})"

        self._wait(lambda: up(self.cluster, deployment), limit_s, lease, problem)
        say(f"{self.place.name}: slot {slot} is up after {self.clock() - began:.0f} s")

    def _share(self, before: int, share: int, revision: str, hold_s: float, lease: _Leased) -> None:
        """Raise the share from what it was before, and hold it. Raises RolledBack."""
        words = f"step: {revision} gets {share} %"

        def raise_it(state: Slots) -> Slots:
            self._check_share(state, before, revision)
            return state.sharing(share, words, now())

        self._change(raise_it)
        say(f"{self.place.name}: {words} for {hold_s:.0f} s")
        until = self.clock() + hold_s
        while self.clock() < until:
            self.sleep(LOOK_EVERY_S)
            lease.renew_if_due(self.clock())
            self._check_share(slots_of(self.cluster, self.place), share, revision)

    def _check_share(self, state: Slots, share: int, revision: str) -> None:
        """Raise RolledBack if somebody has changed the candidate, or its share."""
        slot = state.slots[state.candidate]
        if (slot.share, slot.revision) != (share, revision):
            raise RolledBack(
                f"{self.place.name}: {revision} lost its share of {share} %: {state.reason}"
            )

    def _wait(
        self,
        done: Callable[[], object],
        limit_s: float,
        lease: _Leased,
        problem: str | Callable[[], str],
    ) -> None:
        until = self.clock() + limit_s
        while not done():
            if self.clock() > until:
                words = problem if isinstance(problem, str) else problem()
                raise MoaaError(f"{self.place.name}: {words}. Its share stays 0.")
            self.sleep(LOOK_EVERY_S)
            lease.renew_if_due(self.clock())

    def _pods(self, deployment: str) -> list[Object]:
        found = self.cluster.get(DEPLOYMENTS, deployment)
        label = found["metadata"].get("labels", {}).get(names.MODEL, deployment)
        return self.cluster.list(PODS, f"{names.MODEL}={label}")

    def _change(self, change: Callable[[Slots], Slots]) -> Slots:
        """Change the ConfigMap, whoever else changes it too."""

        def patch(found: Object) -> Object:
            return {"data": change(Slots.of(found.get("data") or {})).data()}

        written = self.cluster.update(CONFIG_MAPS, self.place.config_map, patch)
        return Slots.of(written["data"])


class _Leased:
    """The lease of a promotion on a slot."""

    def __init__(self, cluster: Cluster, deployment: str) -> None:
        self._cluster, self._deployment = cluster, deployment
        self._lease = leases.Lease(cluster, DEPLOYMENTS, deployment, names.holder(stage="promote"))
        self._renewed_at: float | None = None
        self._scales = False

    def renew(self, *, scale: bool) -> None:
        """Take or renew it; with `scale` the slot is scaled up."""
        self._scales = scale
        self._lease.renew(self._scale if scale else lambda: None)
        self._renewed_at = time.monotonic()

    def renew_if_due(self, at: float) -> None:
        """Renew it every RENEW_EVERY_S."""
        if self._renewed_at is not None and at - self._renewed_at > leases.RENEW_EVERY_S:
            self.renew(scale=self._scales)
            self._renewed_at = at

    def end(self, *, scale_down: bool) -> None:
        """Give it back; with `scale_down` the slot goes to sleep unless somebody else holds it."""
        if self._renewed_at is None:
            return
        self._lease.release()
        if scale_down and not leases.on(self._cluster, f"{DEPLOYMENTS.name}/{self._deployment}"):
            replicas.scale(self._cluster, self._deployment, leased=False)

    def _scale(self) -> None:
        replicas.scale(self._cluster, self._deployment, leased=True)


def check_version(store: Store, source: str) -> None:
    """Raise MoaaError unless a model lies below this address."""
    found = {uri.removeprefix(f"{source}/") for uri, _ in store.list(source)}
    weights = any(name.endswith(".safetensors") for name in found)
    if "config.json" not in {name.rpartition("/")[2] for name in found} or not weights:
        raise MoaaError(
            f"{source} is no model: config.json or *.safetensors is missing there. Give the "
            "address of an sft or dpo result, or of any folder with a model."
        )


def _place(found: Object) -> Place:
    metadata = found["metadata"]
    annotations = metadata.get("annotations") or {}
    name = metadata["labels"][names.PROMOTED]
    try:
        deployments = {slot: json.loads(annotations[names.SLOTS])[slot] for slot in SLOTS}
        return Place(name, metadata["name"], deployments, annotations[names.POINTERS])
    except (KeyError, ValueError, TypeError):
        raise MoaaError(
            f"ConfigMap {metadata['name']} is labelled as the promoted model '{name}', and its "
            f"annotations {names.SLOTS} and {names.POINTERS} do not say what it is made of; "
            "moaa-serving writes them."
        ) from None
