"""Promotes a version of a model on the cluster, and rolls it back.

A promotion empties the idle slot, writes its pointer and starts it. Then it asks the slot the
version's canary prompts, and raises its share in steps. Each step is held for some time, or until
the gateways have counted enough answers of the version. If the gateway's guard or a person sets the
share to 0, or the deadline passes, the promotion stops and everything is put back.

It may be killed at any time: the pods of a slot with a share always serve the version that the
shares name, and the next promotion continues. On the cluster it changes the ConfigMap of the
shares, its own Lease and the slots' replicas, and it writes an Event.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from moaa.clock import now
from moaa.errors import MoaaError
from moaa.gateway.discovery import start_s
from moaa.gateway.places import PromotedDeployment, check_version, pods_of, slots_of, switch, up
from moaa.gateway.slot_lease import SlotLease
from moaa.gateway.slots import Slots, other, pointer_text, revision_of
from moaa.gateway.traffic_split import event
from moaa.kubernetes import names, pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, EVENTS, PODS, Object
from moaa.progress.messages import log, say
from moaa.recipe.promote import Promote
from moaa.store import Store

LOOK_EVERY_S: Final = 1.0
NOT_PROMOTED: Final = "MoaaNotPromoted"
"""The reason of the Event, as `kubectl get events` shows it."""
Canary = Callable[[Sequence[str]], None]
"""Gets the addresses of the slot's pods. Raises MoaaError if they do not serve the version."""


class RolledBack(MoaaError):
    """The new version is not in production, and everything is as it was before."""

    @property
    def exit_status(self) -> int:
        """The status of a promotion that was rolled back."""
        return 3


class NotStarted(MoaaError):
    """The slot did not start with the new version, and everything is as it was before."""


@dataclass(eq=False)
class Promotion:
    """One promotion or roll-back in progress."""

    cluster: Cluster
    place: PromotedDeployment
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _until: float = field(default=float("inf"), init=False)

    def promote(
        self,
        store: Store,
        source: str,
        how: Promote = Promote(),
        canary: Canary = lambda urls: None,
    ) -> Slots:
        """Put a version into production; return the state after it.

        `how`: its steps, how long each is held, and the deadline; its `slots` and `namespace` are
        not used. Raises RolledBack if it loses its share or the deadline passes, MoaaError if the
        slot does not start or serves another model.
        """
        source = source.rstrip("/")
        check_version(store, source)
        slots = slots_of(self.cluster, self.place)
        if self._has_all(slots, source):
            switch(self.cluster, self.place, slots.production)
            say(f"{self.place.name}: {source} already has all conversations")
            return slots
        self._until = self.clock() + how.deadline_s
        switch(self.cluster, self.place, slots.production)  # a killed promotion may not have
        first = not slots.slots[slots.production].source
        slot = slots.production if first else slots.candidate
        lease = SlotLease(self.cluster, self.place.deployments[slot], self.clock)
        lease.take(lambda: self._pause(lease))
        try:
            self._fill(store, slot, source, lease)
            canary(pods_of(self.cluster, self.place.deployments[slot]))
            if first:
                return self._change(lambda state: state.sharing(0, "the first version", now()))
            if self.place.service:
                switch(self.cluster, self.place, slot)
                words = "no gateway: the Service selects the new slot"
                return self._change(lambda state: state.promoted(words, now()))
            return self._raise(revision_of(source), how, lease)
        except BaseException as error:
            self._put_back(slot, source, error)
            raise
        finally:
            # The gateway holds the slots with a share; the others go to sleep.
            lease.end(scale_down=not slots_of(self.cluster, self.place).slots[slot].share)

    def roll_back(self, reason: str) -> Slots:
        """Give all conversations to the slot that had them before; return the state after it."""
        slots = slots_of(self.cluster, self.place)
        bad = slots.candidate if slots.slots[slots.candidate].share else slots.production
        target = other(bad)
        if not slots.slots[target].source:
            raise MoaaError(f"'{self.place.name}' has no earlier version: slot {target} is empty.")
        lease = SlotLease(self.cluster, self.place.deployments[target], self.clock)
        try:
            if not up(self.cluster, self.place.deployments[target]):
                say(f"{self.place.name}: slot {target} is not running: it is started first")
                lease.renew(scale=True)
                self._wait_until_up(target, lease)
            switch(self.cluster, self.place, target)
            return self._change(lambda state: state.rolled_back(reason, now()))
        finally:
            lease.end(scale_down=False)

    def _has_all(self, state: Slots, source: str) -> bool:
        slot = state.slots[state.production]
        return slot.source == source and slot.share == 100

    def _fill(self, store: Store, slot: str, source: str, lease: SlotLease) -> None:
        """Make the slot serve the version. The slot is empty while its pods may serve another
        version than its pointer names, so that it gets no share and no roll-back."""
        revision = revision_of(source)
        words = f"slot {slot} gets {revision}"
        self._change(lambda state: state.emptied(slot, words, now()))
        self._stop(slot, lease)
        store.put(self.place.pointer(slot), pointer_text(source).encode())
        self._change(lambda state: state.holding(slot, source))
        say(f"{self.place.name}: {words} ({source})")
        lease.renew(scale=True)
        self._wait_until_up(slot, lease)

    def _raise(self, revision: str, how: Promote, lease: SlotLease) -> Slots:
        """Raise the version's share step by step, then make it production."""
        before, held = 0, ""
        for share in how.steps:
            self._share(before, share, revision, held)
            most = f" or {how.hold_requests} requests" if how.hold_requests else ""
            say(f"{self.place.name}: {share} % is held for {how.hold_s:.0f} s{most}")
            held = self._hold(share, revision, how, lease)
            before = share
        words = f"promoted: {revision} {held}"

        def finish(state: Slots) -> Slots:
            self._check_share(state, before, revision)
            return state.promoted(words, now())

        return self._change(finish)

    def _put_back(self, slot: str, source: str, error: BaseException) -> None:
        """Take the version out of its slot, and say why. Production keeps its share."""
        reason = f"{revision_of(source)} is not promoted: {error or type(error).__name__}"

        def empty(found: Object) -> Object | None:
            data = found.get("data") or {}
            state = Slots.of(data)
            if state.slots[slot].source not in ("", source) or self._has_all(state, source):
                return None  # somebody else has changed it
            return {"data": state.emptied(slot, reason, now()).patch(data)}

        try:
            written = self.cluster.update(CONFIG_MAPS, self.place.config_map, empty)
            state = Slots.of(written.get("data") or {})
            switch(self.cluster, self.place, state.production)
            self.cluster.create(EVENTS, event(written, NOT_PROMOTED, reason, "moaa promote"))
        except MoaaError as failed:
            log.error(f"{self.place.name}: the slot could not be emptied again: {failed}")

    def _stop(self, slot: str, lease: SlotLease) -> None:
        """Stop the pods of an earlier version: pods read the pointer only when they start. A
        gateway that has not yet seen that the slot is empty may start one more."""
        deployment = self.place.deployments[slot]

        def stopped() -> bool:
            self.cluster.update(
                DEPLOYMENTS,
                deployment,
                lambda found: (
                    {"spec": {"replicas": 0}} if found["spec"].get("replicas", 1) else None
                ),
                part="scale",
            )
            return not self._pods(deployment)

        self._wait(stopped, 600, lease, f"slot {slot} did not stop")

    def _wait_until_up(self, slot: str, lease: SlotLease) -> None:
        deployment = self.place.deployments[slot]
        limit_s = start_s(self.cluster.get(DEPLOYMENTS, deployment)) + 60
        began = self.clock()

        def problem() -> str:
            return f"slot {slot} did not start within {limit_s:.0f} s ({self._waits_for(slot)})"

        try:
            self._wait(lambda: up(self.cluster, deployment), limit_s, lease, problem)
        except RolledBack as error:
            raise RolledBack(f"{error} Slot {slot} did not start ({self._waits_for(slot)}).") from (
                None
            )
        say(f"{self.place.name}: slot {slot} is up after {self.clock() - began:.0f} s")

    def _waits_for(self, slot: str) -> str:
        found = self._pods(self.place.deployments[slot])
        return pods.summary(pods.waits_for(each, time.time()) for each in found) or "no pod"

    def _share(self, before: int, share: int, revision: str, held: str) -> None:
        """Raise the share from `before`. Raises RolledBack if somebody else changed it."""
        words = f"step: {revision} {f'{held}, and gets' if held else 'gets'} {share} %"

        def raise_it(state: Slots) -> Slots:
            self._check_share(state, before, revision)
            return state.sharing(share, words, now())

        self._change(raise_it)
        say(f"{self.place.name}: {words}")

    def _hold(self, share: int, revision: str, how: Promote, lease: SlotLease) -> str:
        """Hold the share for its time; return in words for how long, and for how many requests.
        Raises RolledBack."""
        began, answered, enough = self.clock(), 0, how.hold_requests
        while self.clock() - began < how.hold_s and not (enough and answered >= enough):
            self._pause(lease)
            state = slots_of(self.cluster, self.place)
            self._check_share(state, share, revision)
            answered = state.answered
        held_s = self.clock() - began
        return f"held {share} % for {held_s:.0f} s, {_requests(answered, enough)}"

    def _check_share(self, state: Slots, share: int, revision: str) -> None:
        """Check the candidate and its share. Raises RolledBack if somebody has changed them."""
        slot = state.slots[state.candidate]
        if (slot.share, slot.revision) != (share, revision):
            raise RolledBack(
                f"{self.place.name}: {revision} lost its share of {share} %: {state.reason}"
            )

    def _wait(
        self,
        done: Callable[[], object],
        limit_s: float,
        lease: SlotLease,
        problem: str | Callable[[], str],
    ) -> None:
        until = self.clock() + limit_s
        while not done():
            if self.clock() > until:
                words = problem if isinstance(problem, str) else problem()
                raise NotStarted(f"{self.place.name}: {words}. Its share stays 0.")
            self._pause(lease)

    def _pause(self, lease: SlotLease) -> None:
        """Wait a moment and renew the lease. Raises RolledBack after the deadline."""
        if self.clock() > self._until:
            raise RolledBack(
                f"{self.place.name}: the deadline of the promotion has passed: everything is put "
                "back."
            )
        self.sleep(LOOK_EVERY_S)
        lease.renew_if_due()

    def _pods(self, deployment: str) -> list[Object]:
        found = self.cluster.get(DEPLOYMENTS, deployment)
        label = found["metadata"].get("labels", {}).get(names.MODEL, deployment)
        return self.cluster.list(PODS, f"{names.MODEL}={label}")

    def _change(self, change: Callable[[Slots], Slots]) -> Slots:
        """Change the ConfigMap, even if others change it at the same time."""

        def patch(found: Object) -> Object:
            data = found.get("data") or {}
            return {"data": change(Slots.of(data)).patch(data)}

        written = self.cluster.update(CONFIG_MAPS, self.place.config_map, patch)
        return Slots.of(written["data"])


def _requests(answered: int, enough: int | None) -> str:
    """Return in words how many requests the gateways counted. Gateways of earlier versions count
    none; then only the time decides."""
    if enough and answered < enough:
        return f"{answered} of {enough} requests counted"
    if not answered:
        return "no request counted"
    return "1 request" if answered == 1 else f"{answered} requests"
