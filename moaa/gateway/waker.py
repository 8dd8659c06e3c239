"""Wakes models that are asleep, and lets idle models sleep again.

For each model that they need, all replicas of the gateway share one Lease object (they use the same
holder), and scale the model up as a stage of a pipeline does. A model without a request for
`idle_s` seconds is given back: its lease is no longer renewed. The replica that renewed it last
removes it after two periods without a renewal by another replica. If that replica has died, the
lease runs out and the reaper scales the model down.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from moaa.errors import MoaaError
from moaa.gateway.backend import Backend
from moaa.gateway.discovery import start_s
from moaa.gateway.wire import LONGEST_WAIT_S, ApiError
from moaa.kubernetes import leases, replicas
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Conflict, NotFound, Unreachable
from moaa.kubernetes.kinds import DEPLOYMENTS, LEASES, Object
from moaa.progress.messages import log, say

LOOK_EVERY_S: Final = 1.0
COMMENT_EVERY_S: Final = 5.0
PATIENCE_S: Final = 20.0
"""How long each call waits for an API server that does not answer."""


@dataclass(eq=False)
class Held:
    """A model that this process needs."""

    lease: leases.Lease
    used_at: float
    woken_at: float | None
    """When its start began; None once it is up."""
    renewed_at: float = float("-inf")
    task: asyncio.Task[None] | None = None
    failure: MoaaError | None = None


@dataclass(frozen=True, slots=True)
class Waking:
    """The progress of a start."""

    model: str
    for_s: float
    about_s: float
    """How long the start takes: as long as the last one, or the longest time allowed."""
    known: bool

    @property
    def left_s(self) -> float:
        """Seconds until the model is up, at least 1."""
        return max(1.0, self.about_s - self.for_s)

    def __str__(self) -> str:
        most = "about" if self.known else "at most"
        return f"waking {self.model}, {self.for_s:.0f} s of {most} {self.about_s:.0f}"


@dataclass(frozen=True, slots=True)
class WakeTimes:
    """The waiting times, in seconds."""

    idle_s: float = 900.0
    """A model without a request for this long goes to sleep."""
    hold_s: float = 900.0
    """A streamed request waits at most this long for its model."""
    renew_every_s: float = leases.RENEW_EVERY_S
    look_every_s: float = LOOK_EVERY_S


@dataclass(eq=False)
class Waker:
    """The leases of the gateway's replicas, as known to this process."""

    cluster: Cluster
    backends: Mapping[str, Backend]
    """The backends, by the name of their Deployment."""
    deployment: Callable[[str], Object | None]
    holder: str
    """`gateway/<release>`: the same in all replicas of the gateway."""
    times: WakeTimes = WakeTimes()
    now: Callable[[], float] = time.monotonic
    kept: Collection[str] = ()
    """Deployments that stay up without a request: slots with a share."""
    empty: Collection[str] = ()
    """Deployments that are given back at once: slots without a version. A promotion stops them, and
    a renewed lease would start them again."""
    _held: dict[str, Held] = field(default_factory=dict)
    _took_s: dict[str, float] = field(default_factory=dict)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def open(self) -> None:
        """Take over the leases that an earlier process of this gateway has left."""
        for name in self.backends:
            with suppress(MoaaError):
                await asyncio.to_thread(
                    self.cluster.get, LEASES, self._lease(name).name, retry_s=PATIENCE_S
                )
                self.used(name)

    async def run(self) -> None:
        """Renew the leases in use and give back the idle ones, until cancelled."""
        while True:
            await asyncio.sleep(self.times.look_every_s)
            self.look()

    async def close(self) -> None:
        """Wait for calls in progress. The leases stay: other replicas may need them."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def used(self, name: str) -> None:
        """Note that a request needs this Deployment: lease it, and start it if it is down."""
        held = self._held.get(name)
        if held is None:
            down = self.backends[name].state != "ready"
            held = Held(self._lease(name), self.now(), self.now() if down else None)
            self._held[name] = held
            self._renew(name, held)
        held.used_at = self.now()

    def wake(self, name: str) -> Waking:
        """Start this Deployment, or continue to wait for it; return the progress.

        Raises ApiError if the cluster refuses.
        """
        self.used(name)
        held = self._held[name]
        if held.failure is not None:
            raise ApiError(
                503,
                f"'{self.backends[name].name}' is asleep and could not be woken.",
                "model_asleep",
                retry=False,
            )
        if held.woken_at is None:  # it was up before, and is down now
            held.woken_at = self.now()
            self._renew(name, held)
        took_s = self._took_s.get(name)
        return Waking(
            self.backends[name].name,
            self.now() - held.woken_at,
            took_s or start_s(self.deployment(name)),
            took_s is not None,
        )

    async def until_up(self, name: str) -> AsyncIterator[Waking]:
        """Yield the progress of the start, at once and every few seconds, until the model is up.

        Raises ApiError if the model is not up in time.
        """
        began, said = self.now(), float("-inf")
        while self.backends[name].state != "ready":
            waking = self.wake(name)
            if self.now() - began > self.times.hold_s:
                raise ApiError(
                    503,
                    f"'{waking.model}' did not start within {self.times.hold_s:.0f} s.",
                    "model_asleep",
                    after_s=waking.left_s,
                )
            if self.now() - said >= COMMENT_EVERY_S:
                said = self.now()
                yield waking
            await asyncio.sleep(min(0.1, self.times.look_every_s))

    def look(self) -> None:
        """Renew each lease that is due, and give back each model that is idle."""
        for name in self.kept:
            self.used(name)
        for name, held in list(self._held.items()):
            backend = self.backends[name]
            if backend.state == "ready" and held.woken_at is not None:
                self._took_s[name] = self.now() - held.woken_at
                held.woken_at = None
                say(f"{backend.name} is up after {self._took_s[name]:.0f} s")
            if backend.in_flight:
                held.used_at = self.now()
            if held.task is not None and not held.task.done():
                continue
            empty = name in self.empty
            idle = self.now() - held.used_at > self.times.idle_s
            unrenewed_s = self.now() - held.renewed_at
            # Another replica that needs it has renewed the lease by then.
            if empty or (idle and unrenewed_s > 2 * self.times.renew_every_s):
                del self._held[name]
                self._start(partial(self._give_back, name, held), held)
            elif not idle and unrenewed_s >= self.times.renew_every_s:
                self._renew(name, held)

    def _renew(self, name: str, held: Held) -> None:
        held.renewed_at = self.now()
        if held.task is None or held.task.done():
            self._start(partial(self._take, name, held), held)

    def _start(self, work: Callable[[], None], held: Held) -> None:
        held.task = asyncio.create_task(self._done(work, held))
        self._tasks.add(held.task)
        held.task.add_done_callback(self._tasks.discard)

    async def _done(self, work: Callable[[], None], held: Held) -> None:
        try:
            await asyncio.to_thread(work)
            held.failure = None
        except (Unreachable, Conflict) as error:  # the next time may succeed
            log.warning(f"gateway: the lease {held.lease.name} was not renewed: {error}")
        except MoaaError as error:
            if held.failure is None:
                log.error(f"gateway: {error}")
            held.failure = error

    def _take(self, name: str, held: Held) -> None:
        def scale() -> None:
            before, after = replicas.scale(self.cluster, name, leased=True, retry_s=PATIENCE_S)
            if before != after:
                say(f"woke {name}: from {before} to {after} replicas")

        # The lease comes first: who scales down looks at the leases afterwards.
        held.lease.renew(scale, retry_s=PATIENCE_S)

    def _give_back(self, name: str, held: Held) -> None:
        try:
            held.lease.release(shared=True, retry_s=PATIENCE_S)
        except Conflict:  # another replica of the gateway needs it, and gives it back
            return
        target = f"{DEPLOYMENTS.name}/{name}"
        with suppress(NotFound):
            if leases.on(self.cluster, target, retry_s=PATIENCE_S):
                return
            before, after = replicas.scale(self.cluster, name, leased=False, retry_s=PATIENCE_S)
            if leases.on(self.cluster, target, retry_s=PATIENCE_S):  # taken just now
                replicas.scale(self.cluster, name, leased=True, retry_s=PATIENCE_S)
            elif before != after:
                say(f"{name} was idle: from {before} to {after} replicas")

    def _lease(self, name: str) -> leases.Lease:
        uid = ((self.deployment(name) or {}).get("metadata") or {}).get("uid", "")
        holder = f"{self.holder}/{name}"
        return leases.Lease(self.cluster, DEPLOYMENTS, name, holder, uid=uid)


def asleep(waking: Waking) -> ApiError:
    """Return the answer to a request that cannot wait, because it is not streamed."""
    return ApiError(
        503,
        f"'{waking.model}' was asleep: {waking}. Try again, or stream: a streamed request waits.",
        "model_asleep",
        after_s=min(waking.left_s, LONGEST_WAIT_S),
        retry=True,
    )


def may_not_wake(model: str) -> ApiError:
    """Return the answer to a key without the right to wake."""
    return ApiError(
        503, f"'{model}' is asleep, and this key may not wake it.", "model_asleep", retry=False
    )
