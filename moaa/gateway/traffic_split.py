"""A promoted model: one name, two slots, and a guard that stops a bad revision."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Final

from moaa.clock import now
from moaa.errors import MoaaError
from moaa.gateway.backend import Backend
from moaa.gateway.guard import Guard, RequestOutcome
from moaa.gateway.shares import slot_of
from moaa.gateway.slots import REQUESTS, Slots
from moaa.gateway.wire import ApiError
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import CONFIG_MAPS, EVENTS, Object
from moaa.kubernetes.mirror import Mirror
from moaa.progress.messages import log

ROLL_BACK: Final = "MoaaRolledBack"
"""The reason of the Event, as `kubectl get events` shows it."""
TELL_EVERY_S: Final = 3.0
"""At least this many seconds between two writes of the number of answered requests."""


class TrafficSplit:
    """The two slots of one promoted model in this process."""

    def __init__(
        self, name: str, backends: Mapping[str, Backend], slots: Slots, *, empty: bool = False
    ) -> None:
        """`backends`: by slot. `empty`: a slot of unknown version has no version, as on a cluster
        before the first promotion."""
        self.name, self.backends, self._empty = name, backends, empty
        self.guard = Guard()
        self.on_roll_back: list[Callable[[str, str], None]] = []
        """Called with a revision that was rolled back, and the reason."""
        self._blamed = ""
        """A revision that gets no requests here, until the shares say the same."""
        self._alone_said = False
        self.answered = 0
        """Requests that the candidate has answered here at its current share, failures included."""
        self.slots = slots
        self.set_slots(slots)

    def set_slots(self, slots: Slots) -> None:
        """Divide the conversations by these shares from now on."""
        if slots.trial != self.slots.trial:
            self.answered = 0
        self.slots = slots
        for name, slot in slots.slots.items():
            self.backends[name].revision = slot.revision or f"{self.name}-{name}"
        candidate = self.backends[slots.candidate].revision or ""
        if not slots.slots[slots.candidate].share:
            self._blamed = ""
            self.guard.judge("")
        elif candidate != self.guard.candidate:
            self._blamed = ""
            self.guard.judge(candidate)

    @property
    def shares(self) -> dict[str, float]:
        """{slot: share}. A revision that was rolled back here a moment ago has none."""
        shares = self.slots.shares
        if self._blamed:
            shares = {self.slots.candidate: 0.0, self.slots.production: 100.0}
        return shares

    def choose(self, conversation: str) -> Backend:
        """Return the slot for this conversation. If no slot is up: one that can be woken, or that
        of production, whose error then says that it is down.

        Raises ApiError 503 if there is no version yet.
        """
        full = {slot for slot, each in self.slots.slots.items() if each.source or not self._empty}
        if not full:
            raise ApiError(
                503, f"'{self.name}' has no version yet: promote one.", "model_not_up", retry=False
            )
        for state in ("ready", "asleep"):
            up = {slot for slot in full if self.backends[slot].state == state}
            if (slot := slot_of(conversation, self.shares, up)) is not None:
                return self.backends[slot]
        return self.backends[self.slots.production]

    def called(self, revision: str) -> Backend | None:
        """Return the slot with this name or revision (`name@revision`); None if there is none."""
        for slot, backend in self.backends.items():
            if revision in (slot, backend.revision):
                return backend
        return None

    def seen(self, outcome: RequestOutcome) -> None:
        """Count how a request ended; roll the candidate back if it is worse."""
        if self._blamed:
            return
        if outcome.revision == self.guard.candidate and outcome.ended and not outcome.refused:
            self.answered += 1
        if not (reason := self.guard.add(outcome)):
            return
        if self.backends[self.slots.production].state != "ready":
            if not self._alone_said:
                self._alone_said = True
                log.error(f"{self.name}: {reason}; not rolled back: production's slot is not up")
            self.guard.judge(self.guard.candidate)
            return
        self._blamed = outcome.revision
        log.error(f"{self.name}: rolled back: {reason}")
        for told in self.on_roll_back:
            told(outcome.revision, reason)


class WatchedSlots:
    """Watches a promoted model's ConfigMap, and writes to it: roll-backs, and how many requests the
    candidate has answered."""

    def __init__(self, cluster: Cluster, config_map: str, promoted: TrafficSplit, by: str) -> None:
        """`by`: the name of this pod, as the writer."""
        self._cluster, self._name, self._promoted, self._by = cluster, config_map, promoted, by
        self._loop = asyncio.get_running_loop()
        self._mirror = Mirror(
            cluster, CONFIG_MAPS, "", self._wake, fields=f"metadata.name={config_map}"
        )
        self._said = self._untold = ""
        self._counter = f"{by}.{secrets.token_hex(3)}"
        """The name of this process's count. A restarted pod gets a new one, so no count is lost."""
        self._told: tuple[object, int] = ((), 0)
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Read the shares and start to watch them. Raises ClusterError."""
        await asyncio.to_thread(self._mirror.start)
        self._apply()

    def close(self) -> None:
        """Stop watching. The shares stay as they are."""
        self._mirror.stop()

    async def written(self) -> None:
        """Wait until all roll-backs are written."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def roll_back(self, revision: str, reason: str) -> None:
        """Write a share of 0 for this revision, and an Event with the reason, in the background."""
        task = self._loop.create_task(self._write(revision, reason))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run(self) -> None:
        """Write how many requests the candidate has answered, until cancelled."""
        while True:
            await asyncio.sleep(TELL_EVERY_S)
            await self.tell()

    async def tell(self) -> None:
        """Write how many requests the candidate has answered here, if the number has changed."""
        trial, answered = self._promoted.slots.trial, self._promoted.answered
        if not answered or (trial, answered) == self._told:
            return
        try:
            await asyncio.to_thread(
                count, self._cluster, self._name, trial, self._counter, answered
            )
        except MoaaError as error:
            if str(error) != self._untold:
                log.warning(f"{self._promoted.name}: requests could not be counted: {error}")
            self._untold = str(error)
        else:
            self._told, self._untold = (trial, answered), ""

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and a mirror's thread still runs
            self._loop.call_soon_threadsafe(self._apply)

    def _apply(self) -> None:
        found = self._mirror.objects.get(self._name)
        said = str(self._mirror.error or "")
        try:
            if found is None:
                raise MoaaError("it does not exist")
            self._promoted.set_slots(Slots.of(found.get("data") or {}))
        except MoaaError as error:
            said = f"ConfigMap {self._name}: {error}"
        if said and said != self._said:
            log.error(f"{self._promoted.name}: the shares stay as they are: {said}")
        self._said = said

    async def _write(self, revision: str, reason: str) -> None:
        try:
            await asyncio.to_thread(
                roll_back, self._cluster, self._name, revision, reason, self._by
            )
        except MoaaError as error:
            log.error(f"{self._promoted.name}: the roll-back could not be written: {error}")


def roll_back(cluster: Cluster, config_map: str, revision: str, reason: str, by: str) -> bool:
    """Set this revision's share to 0, with the reason in an Event;
    return False if it has no share."""
    changed = False

    def change(found: Object) -> Object | None:
        nonlocal changed
        data = found.get("data") or {}
        slots = Slots.of(data)
        candidate = slots.slots[slots.candidate]
        changed = candidate.share > 0 and candidate.revision in (revision, "")
        return {"data": slots.rolled_back(reason, now()).patch(data)} if changed else None

    written = cluster.update(CONFIG_MAPS, config_map, change)
    if changed:
        cluster.create(EVENTS, event(written, ROLL_BACK, reason, by))
    return changed


def count(
    cluster: Cluster, config_map: str, trial: tuple[str, int, str], counter: str, answered: int
) -> None:
    """Write how many requests a candidate has answered at its share. Write nothing if the share or
    the candidate has changed."""

    def change(found: Object) -> Object | None:
        same = Slots.of(found.get("data") or {}).trial == trial
        return {"data": {f"{REQUESTS}{counter}": str(answered)}} if same else None

    cluster.update(CONFIG_MAPS, config_map, change, retry_s=TELL_EVERY_S)


def event(about: Object, reason: str, message: str, by: str, kind: str = "Warning") -> Object:
    """Return an Event about a ConfigMap."""
    metadata, stamp = about["metadata"], now()
    involved = {
        "apiVersion": CONFIG_MAPS.version,
        "kind": CONFIG_MAPS.name,
        "name": metadata["name"],
        "namespace": metadata.get("namespace", ""),
        "uid": metadata["uid"],
    }
    return {
        "apiVersion": EVENTS.version,
        "kind": EVENTS.name,
        "metadata": {"generateName": f"{metadata['name']}."},
        "involvedObject": involved,
        "reason": reason,
        "message": message[:1000],
        "type": kind,
        "source": {"component": by},
        "firstTimestamp": stamp,
        "lastTimestamp": stamp,
        "count": 1,
    }
