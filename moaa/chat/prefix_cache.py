"""How many prompt tokens the engines' prefix caches served, by the engines' own counters.

vLLM counts at /metrics the prompt tokens that it looked for in its cache, and those that it found.
If others use a server too, its counters include their requests.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from itertools import count
from typing import Final, NamedTuple

from moaa.chat.metrics import Metrics, summed
from moaa.chat.pool import Endpoint, Pool
from moaa.ledger import Ledger

NEW_EVERY_S: Final = 0.5
"""How soon a new server is looked at: its earlier counts are not ours."""
LOOK_EVERY: Final = 10
"""Every LOOK_EVERY-th look is at all servers, so that one that stops has left recent counts."""

_SAMPLE: Final = re.compile(r"^vllm:prefix_cache_(queries|hits)_total(?:\{.*\})? (\S+)", re.M)


class Counts(NamedTuple):
    """Prompt tokens that were looked for in the prefix cache, and those that were found."""

    queries: int
    hits: int


def counts_of(metrics: str) -> Counts | None:
    """Return the counts in the text of /metrics, over all of a server's engines; None without."""
    found = summed(_SAMPLE, metrics) or {}
    if not {"queries", "hits"} <= found.keys():
        return None
    return Counts(found["queries"], found["hits"])


class PrefixCaches:
    """Adds to the ledger what the servers of all pools have counted since they were first seen."""

    def __init__(self, pools: Mapping[str, Pool], metrics: Metrics, ledger: Ledger) -> None:
        self._pools, self._metrics, self._ledger = pools, metrics, ledger
        self._seen: dict[Endpoint, Counts | None] = {}
        """The last counts. None: the server has none, and is not asked again."""

    async def run(self) -> None:
        """Look until cancelled. Call `look` once more before the servers stop."""
        for times in count():
            await self.look(new=times % LOOK_EVERY != 0)
            await asyncio.sleep(NEW_EVERY_S)

    async def look(self, *, new: bool = False) -> None:
        """Look at every server once, or only at new ones (`new`)."""
        servers = [
            (model, endpoint)
            for model, pool in self._pools.items()
            for endpoint in pool.endpoints
            if endpoint not in self._seen or not (new or self._seen[endpoint] is None)
        ]
        await asyncio.gather(*(self._look_at(*each) for each in servers))

    async def _look_at(self, model: str, endpoint: Endpoint) -> None:
        text = await self._metrics(endpoint)
        if text == "":  # not now
            return
        now = counts_of(text or "")
        before, self._seen[endpoint] = self._seen.get(endpoint), now
        if now is None or before is None:
            return
        if now.queries < before.queries:  # the server was restarted
            before = Counts(0, 0)
        use = self._ledger.model(model)
        use.prefix_queries += now.queries - before.queries
        use.prefix_hits += now.hits - before.hits
