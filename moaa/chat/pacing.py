"""Sets how many requests a server gets at the same time, by its load.

vLLM reports its load at /metrics: how many requests wait in its queue, and how often it put one
aside because its KV cache was full (a preemption: the request is computed again). If either grows,
the server gets fewer requests. If all its places are used and nothing waits, it gets more. A server
without such metrics keeps its first number, and its metrics are not read again.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from moaa.chat.metrics import Metrics, summed
from moaa.chat.pool import Endpoint, Pool
from moaa.ledger import Ledger

LOOK_EVERY_S: Final = 5.0
LEAST: Final = 8
CALM: Final = 6
"""For how many looks the number stays the same after it was lowered."""
LOWERED: Final = "fewer requests in flight: an engine's queue or its preemptions grew"

_SAMPLE: Final = re.compile(
    r"^vllm:num_(requests_running|requests_waiting|preemptions_total)(?:\{.*\})? (\S+)", re.M
)


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine reports about itself. `preemptions` counts since its start."""

    running: int
    waiting: int
    preemptions: int = 0

    @property
    def queue(self) -> bool:
        """Whether more requests wait than a quarter of those that run."""
        return self.waiting > self.running // 4


@dataclass(frozen=True, slots=True)
class Pace:
    """The current number of places, and for how many more looks it must not grow."""

    places: int
    calm: int = 0


def load_of(metrics: str) -> Load | None:
    """Return the load in the text of /metrics, summed over a server's engines; None if the text is
    not vLLM's."""
    found = summed(_SAMPLE, metrics) or {}
    if not {"requests_running", "requests_waiting"} <= found.keys():
        return None
    return Load(
        found["requests_running"], found["requests_waiting"], found.get("preemptions_total", 0)
    )


def next_pace(pace: Pace, load: Load, before: Load, used: int, most: int) -> Pace:
    """Return the pace after a look. `before`: the load at the previous look; `used`: our requests
    in flight."""
    if load.preemptions > before.preemptions or (load.queue and before.queue):
        return Pace(max(min(LEAST, pace.places), pace.places * 3 // 4), CALM)
    if pace.calm:
        return replace(pace, calm=pace.calm - 1)
    if used >= pace.places and not load.waiting:
        return Pace(min(most, pace.places + max(1, pace.places // 8)))
    return pace


class Pacing:
    """Looks at the servers of all pools, and sets the number of their places."""

    def __init__(self, pools: Mapping[str, Pool], metrics: Metrics, ledger: Ledger) -> None:
        self._pools, self._metrics, self._ledger = pools, metrics, ledger
        self._loads: dict[Endpoint, Load] = {}
        self._calm: dict[Endpoint, int] = {}

    async def run(self) -> None:
        """Look until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            await self.look()

    async def look(self) -> None:
        """Look once at every server whose number of places follows its load."""
        followed = [
            (pool, endpoint)
            for pool in self._pools.values()
            for endpoint in pool.endpoints
            if endpoint.places is not None and endpoint.places.follows
        ]
        self._loads = {e: self._loads[e] for _, e in followed if e in self._loads}
        self._calm = {e: self._calm[e] for _, e in followed if e in self._calm}
        await asyncio.gather(*(self._look_at(pool, endpoint) for pool, endpoint in followed))

    async def _look_at(self, pool: Pool, endpoint: Endpoint) -> None:
        assert endpoint.places is not None
        text = await self._metrics(endpoint)
        if text == "":
            return
        load = None if text is None else load_of(text)
        if load is None:
            endpoint.places = replace(endpoint.places, follows=False)
            return
        before, self._loads[endpoint] = self._loads.get(endpoint), load
        if before is None:
            return
        now = pool.limit(endpoint)
        pace = next_pace(
            Pace(now, self._calm.get(endpoint, 0)),
            load,
            before,
            endpoint.in_flight,
            endpoint.places.most,
        )
        self._calm[endpoint] = pace.calm
        if pace.places < now:
            self._ledger.events[LOWERED] += 1
        pool.set_limit(endpoint, pace.places)
