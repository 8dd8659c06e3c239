"""When a model is up, and which calls wait for it: all models together, or in turns if they do not
all fit.

Together: every model is started at the first call that the journal cannot answer. Calls go to their
pool at once and wait there until the first endpoint is up. By turns: calls wait per model. A model
without calls is stopped for the one with the most waiting calls. So an ensemble of any size runs on
one machine, at the price of some more starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING

from moaa.asking.fleet import Fleet
from moaa.asking.session import Session
from moaa.errors import EngineError

if TYPE_CHECKING:
    from moaa.chat.client import Client

QUIET_S = 0.02
"""The schedule stops a model only after this long without a new call: conversations that have just
got an answer ask their next question first."""
MAX_QUIET_WAITS = 50
LOOK_AGAIN_S = 1.0
"""How long to wait before another look at calls that are too few for a start."""


def next_up(
    waiting: Mapping[str, int], in_flight: Mapping[str, int], up: frozenset[str], capacity: int
) -> frozenset[str]:
    """Return the models that should be up now.

    `waiting`: calls that wait for models that are not up; `in_flight`: calls at those that are.

    1. Free places go to the models with the most waiting calls (on a tie: later in `waiting`).
    2. An idle model is replaced only if the candidate with the most waiting calls has at least as
       many as the busiest running model has in flight. The idle model that comes last in `waiting`
       is replaced first.
    3. Models with calls in flight are never stopped.

    The order of `waiting` matters because a stage names first the models that it needs again.
    """
    wanted = sorted(
        (model for model in reversed(list(waiting)) if waiting[model] and model not in up),
        key=lambda model: -waiting[model],
    )
    busy = frozenset(model for model in up if in_flight.get(model))
    free = capacity - len(up)
    enough = max((in_flight[model] for model in busy), default=0)
    chosen = wanted[:free] + [
        model for model in wanted[free : capacity - len(busy)] if waiting[model] >= enough
    ]
    idle = [model for model in reversed(list(waiting)) if model in up - busy]
    leaving = idle[: max(0, len(chosen) - free)]
    return up - frozenset(leaving) | frozenset(chosen)


class Schedule:
    """Lets calls through when their model is up.
    `serve` runs the engines beside the conversations."""

    def __init__(
        self,
        session: Session,
        client: Client,
        by_turns: Callable[[], None],
        *,
        quiet_s: float = QUIET_S,
        look_again_s: float = LOOK_AGAIN_S,
    ) -> None:
        """`by_turns` is called once, when it is known that models must take turns: from then on as
        many conversations as possible should ask."""
        models, self._engines = session.models, session.runtime.engines
        self._served = frozenset(
            name
            for name, model in models.items()
            if model.endpoint or self._engines.kind == "endpoint"
        )
        self._started = frozenset(models) - self._served
        self._session = session
        self._client = client
        self._by_turns = by_turns
        self._quiet_s = quiet_s
        self._look_again_s = look_again_s
        self._missed = asyncio.Event()
        self._changed = asyncio.Event()
        self._open: frozenset[str] = frozenset()
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {name: {} for name in models}
        self._in_flight: dict[str, int] = dict.fromkeys(models, 0)

    async def admit(self, model: str) -> None:
        """Wait until calls to this model may be sent. Call `leave` when the call is over."""
        if model in self._open:
            self._in_flight[model] += 1
            return
        if model not in self._waiting:
            raise EngineError(
                f"model '{model}' is called, but this stage serves only {', '.join(self._waiting)}"
            )
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting[model][waiter] = None
        self._missed.set()
        self._changed.set()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave(model)  # it was admitted and cancelled at the same moment
            else:
                self._waiting[model].pop(waiter, None)
            raise

    def leave(self, model: str) -> None:
        """End a call that was admitted."""
        self._in_flight[model] -= 1
        if not self._in_flight[model]:
            self._changed.set()

    async def serve(self) -> None:
        """Start engines at the first call that waits, and keep them up until cancelled."""
        await self._missed.wait()
        async with self._session.start_fleet(self._session, self._client) as fleet:
            capacity, needed = fleet.capacity, len(self._started)
            fits = capacity is None or capacity >= needed
            if self._engines.schedule == "together" and not fits:
                raise EngineError(
                    f"runtime.engines.schedule is 'together', but only {capacity} of {needed} "
                    f"models ({', '.join(sorted(self._started))}) can be up at the same time "
                    "here. Set it to 'by-turns' or 'auto'."
                )
            self._let_through(self._served)
            if fits and self._engines.schedule != "by-turns":
                self._let_through(self._started)
                await fleet.up(self._started)
                await asyncio.Event().wait()
            self._by_turns()
            await self._take_turns(fleet, needed if capacity is None else capacity)

    async def _take_turns(self, fleet: Fleet, capacity: int) -> None:
        up: frozenset[str] = frozenset()
        while True:
            waiting = {
                model: len(calls)
                for model, calls in self._waiting.items()
                if model in self._started
            }
            turn = next_up(waiting, self._in_flight, up, capacity)
            if turn == up:
                await self._quiet(look_again=any(waiting.values()))
                continue
            arriving, leaving = turn - up, up - turn
            self._open -= leaving
            self._session.progress.note(
                "by turns: "
                + ", ".join(f"{m} next ({waiting[m]} calls wait)" for m in sorted(arriving))
            )
            if leaving:
                await fleet.down(leaving)
            await fleet.up(arriving)
            self._session.progress.note("")
            up = turn
            self._let_through(arriving)

    async def _quiet(self, look_again: bool) -> None:
        """Return a moment after the last change. `look_again`: return after some time in any case,
        when the waiting calls may have become worth a start."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._look_again_s if look_again else None):
                await self._changed.wait()
        for _ in range(MAX_QUIET_WAITS):
            self._changed.clear()
            await asyncio.sleep(self._quiet_s)
            if not self._changed.is_set():
                return
        self._changed.clear()

    def _let_through(self, models: Collection[str]) -> None:
        self._open |= frozenset(models)
        for model in models:
            waiters, self._waiting[model] = self._waiting[model], {}
            for waiter in waiters:
                if not waiter.done():
                    self._in_flight[model] += 1
                    waiter.set_result(None)
