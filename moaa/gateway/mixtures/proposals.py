"""Keeps proposals that would be the same the next time, and shares equal calls in flight."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import partial
from typing import Any

from moaa.chat.message import Call, Reply
from moaa.gateway.relay import Usage
from moaa.recipe.method import GREEDY


@dataclass(frozen=True, slots=True)
class Answered:
    """A proposer's reply, and its tokens if the server counted them."""

    reply: Reply
    usage: Usage | None


@dataclass(eq=False, slots=True)
class _Flight:
    task: asyncio.Task[Answered]
    waiting: int = 0


_Key = tuple[str, str]


class Proposals:
    """The last `entries` answers, each kept for `ttl_s` seconds, and the calls in flight."""

    def __init__(self, entries: int, ttl_s: float) -> None:
        self._entries, self._ttl_s = entries, ttl_s
        self._kept: OrderedDict[_Key, tuple[float, Answered]] = OrderedDict()
        self._flights: dict[_Key, _Flight] = {}

    async def get(
        self,
        tenant: str,
        call: Call,
        ask: Callable[[], Coroutine[Any, Any, Answered]],
        *,
        share: bool = True,
    ) -> tuple[Answered, bool]:
        """Return the answer to a call, and whether it cost nothing: it was kept, or another request
        of the same tenant waits for it too.

        Only answers to calls at temperature 0 or with a seed are used again. `share`: whether this
        may wait for another request's call. A call is cancelled when nobody waits for it.
        """
        if call.sampling.temperature >= GREEDY and call.sampling.seed is None:
            return await ask(), False
        key = (tenant, call.key)
        if (kept := self._fresh(key)) is not None:
            return kept, True
        if not share:
            answered = await ask()
            self._keep(key, answered)
            return answered, False
        flight = self._flights.get(key)
        shared = flight is not None
        if flight is None:
            flight = self._flights[key] = _Flight(asyncio.create_task(self._kept_after(key, ask())))
            flight.task.add_done_callback(partial(self._landed, key, flight))
        return await self._wait(key, flight), shared

    async def _wait(self, key: _Key, flight: _Flight) -> Answered:
        flight.waiting += 1
        try:
            return await asyncio.shield(flight.task)
        finally:
            flight.waiting -= 1
            if not flight.waiting and not flight.task.done():
                self._landed(key, flight)  # the next request asks again
                flight.task.cancel()
                await asyncio.wait([flight.task])

    async def _kept_after(self, key: _Key, ask: Awaitable[Answered]) -> Answered:
        answered = await ask
        self._keep(key, answered)
        return answered

    def _landed(self, key: _Key, flight: _Flight, task: object = None) -> None:
        """Forget a finished call."""
        if self._flights.get(key) is flight:
            del self._flights[key]

    def _keep(self, key: _Key, answered: Answered) -> None:
        self._kept[key] = (asyncio.get_running_loop().time() + self._ttl_s, answered)
        self._kept.move_to_end(key)
        while len(self._kept) > self._entries:
            self._kept.popitem(last=False)

    def _fresh(self, key: _Key) -> Answered | None:
        if (found := self._kept.get(key)) is None:
            return None
        until, answered = found
        if until <= asyncio.get_running_loop().time():
            del self._kept[key]
            return None
        self._kept.move_to_end(key)
        return answered
