"""When a model is up, and which calls wait for it: all models together, or by turns where not all
of them fit.

Together: every model is started at the first call that the journal cannot answer; calls go to their
pool at once and wait there until the first endpoint is up. By turns: calls wait per model; a model
that has nothing left to do makes room for the one with most waiting. So an ensemble of any size
runs on one machine, at the price of some starts.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from typing import TYPE_CHECKING

from moaa.errors import EngineError
from moaa.progress import Progress
from moaa.recipe.schema import Engines, Model

if TYPE_CHECKING:
    from moaa.engines import Fleet

SETTLE_S = 0.02
"""A turn ends only after so long without a new call: conversations that were just answered ask on
first."""
MAX_SETTLE = 50
LOOK_AGAIN_S = 1.0


def next_up(
    waiting: Mapping[str, int], in_flight: Mapping[str, int], up: frozenset[str], capacity: int
) -> frozenset[str]:
    """The models that should be up now, given the calls that wait for models that are not and those
    in flight at those that are.

    A free place goes to the model with most waiting; of equals, to the last of `waiting`, and of
    idle models the last of `waiting` leaves first: a stage names the models that it will need again
    before the others. An idle model's place is given away once that with most waiting has as much
    to do as the busiest model that stays: a few calls early are not worth a start.
    """
    wanted = sorted(
        (model for model in reversed(list(waiting)) if waiting[model] and model not in up),
        key=lambda m: -waiting[m],
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
    """Lets calls through when their model is there. `serve` runs the engines beside the
    conversations."""

    def __init__(
        self,
        models: Mapping[str, Model],
        engines: Engines,
        start: Callable[[], AbstractAsyncContextManager[Fleet]],
        progress: Progress,
        by_turns: Callable[[], None],
    ) -> None:
        """`by_turns` is called once, when it turns out that models must take turns: then all
        conversations should ask."""
        self._served = frozenset(
            name for name, model in models.items() if model.endpoint or engines.kind == "endpoint"
        )
        self._started = frozenset(models) - self._served
        self._engines = engines
        self._start = start
        self._progress = progress
        self._by_turns = by_turns
        self._missed = asyncio.Event()
        self._changed = asyncio.Event()
        self._open: frozenset[str] = frozenset()
        self._waiting: dict[str, dict[asyncio.Future[None], None]] = {name: {} for name in models}
        self._in_flight: dict[str, int] = dict.fromkeys(models, 0)

    async def admit(self, model: str) -> None:
        """Returns when calls to this model may be sent. Say `leave` when the call has ended."""
        if model in self._open:
            self._in_flight[model] += 1
            return
        if model not in self._waiting:
            raise EngineError(
                f"'{model}' is asked, but only {', '.join(self._waiting)} are served here"
            )
        waiter = asyncio.get_running_loop().create_future()
        self._waiting[model][waiter] = None
        self._missed.set()
        self._changed.set()
        try:
            await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled():
                self.leave(model)  # its turn came in the moment the call was cancelled
            else:
                self._waiting[model].pop(waiter, None)
            raise

    def leave(self, model: str) -> None:
        self._in_flight[model] -= 1
        if not self._in_flight[model]:
            self._changed.set()

    async def serve(self) -> None:
        """Starts engines at the first call that waits, and keeps them until it is cancelled."""
        await self._missed.wait()
        async with self._start() as fleet:
            capacity, needed = fleet.capacity, len(self._started)
            fits = capacity is None or capacity >= needed
            if self._engines.schedule == "together" and not fits:
                raise EngineError(
                    f"runtime.engines.schedule is 'together', but only {capacity} of {needed} "
                    "models "
                    f"({', '.join(sorted(self._started))}) can be up at once here. Set it to "
                    "'by-turns' or 'auto'."
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
                await self._settled(look_again=any(waiting.values()))
                continue
            arriving, leaving = turn - up, up - turn
            self._open -= leaving
            self._progress.note(
                "by turns: "
                + ", ".join(f"{m} next ({waiting[m]} calls wait)" for m in sorted(arriving))
            )
            if leaving:
                await fleet.down(leaving)
            await fleet.up(arriving)
            self._progress.note("")
            up = turn
            self._let_through(arriving)

    async def _settled(self, look_again: bool) -> None:
        """Returns some time after a change, or after a while: those who wait may be worth a start
        by then."""
        with suppress(TimeoutError):
            async with asyncio.timeout(LOOK_AGAIN_S if look_again else None):
                await self._changed.wait()
        for _ in range(MAX_SETTLE):
            self._changed.clear()
            await asyncio.sleep(SETTLE_S)
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
