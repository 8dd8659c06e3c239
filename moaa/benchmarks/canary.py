"""The canary set: a few held-out prompts whose greedy answers tell one model from another."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import ClassVar, Final

from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Benchmark, Match, Played, Score
from moaa.benchmarks.data import evenly
from moaa.benchmarks.head_to_head import held_out
from moaa.benchmarks.items import Item
from moaa.chat.message import Ask, without_system
from moaa.declaration import RoleCalls
from moaa.errors import RowRejected
from moaa.recipe.schema import Part, Recipe, Sampling
from moaa.registry.canary import TOKENS

PROMPTS: Final = 16
"""The number of prompts: with TOKENS each, some hundred distributions are compared."""


class Canary(Benchmark[Part]):
    """Not a benchmark for recipes: it has no scores.
    evaluate adds it for a candidate that may be published."""

    name: ClassVar[str] = "canary"
    title: ClassVar[str] = "Canary set"
    protocol: ClassVar[str] = (
        "The candidate begins to answer some held-out prompts, greedily, with log-probabilities."
    )

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return PROMPTS of the held-out prompts, without a system role:
        not every model has one."""
        sampling = Sampling(temperature=0, max_tokens=TOKENS)
        return [
            replace(
                item,
                messages=tuple(without_system(item.messages)),
                sampling=sampling,
                logprobs=True,
            )
            for item in evenly(held_out(rows), PROMPTS)
        ]

    def matches(self, entrants: Sequence[str]) -> list[tuple[str, ...]]:
        """Return none: nothing is judged."""
        return []

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Raises RowRejected: nothing is judged."""
        raise RowRejected("not judged", self.title)

    def scores(self, played: Played) -> list[Score]:
        """Return none."""
        return []

    def calls(self, recipe: Recipe) -> Iterator[RoleCalls]:
        """Yield none: PROMPTS short answers are too few to show in a plan."""
        return iter(())
