"""Head to head: every pair of contestants on the run's held-out prompts, judged in both orders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations
from typing import ClassVar

from moaa.benchmarks.benchmark import Benchmark, Item, Match, Played, Row, Score
from moaa.benchmarks.judging import compare
from moaa.chat.message import Ask, opening
from moaa.declaration import Asked
from moaa.recipe import evaluation
from moaa.recipe.schema import Recipe


class HeadToHead(Benchmark[evaluation.HeadToHead]):
    """Win rates of every pair."""

    name: ClassVar[str] = "head_to_head"
    title: ClassVar[str] = "Head to head"
    protocol: ClassVar[str] = (
        "Each contestant answers the first turn of the held-out prompts; the judge compares every "
        "pair of answers in both orders. Equal answers are a tie."
    )

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """The first turn of each held-out prompt."""
        return [
            Item(
                id=row["id"],
                messages=tuple(opening(row["system"], row["turns"][0])),
                group=row.get("source", ""),
            )
            for row in rows
        ]

    def matches(self, entrants: Sequence[str]) -> list[tuple[str, ...]]:
        """Every pair; the later contestant comes first: dpo against base."""
        return [(later, earlier) for earlier, later in combinations(entrants, 2)]

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """The judgement of both answers; `p`: probability that the first entrant's is better."""
        (a,), (b,) = match.answers
        return (await compare(self.judge, match, a.text, b.text, ask)).to_json()

    def scores(self, played: Played) -> list[Score]:
        """Not yet."""
        return []

    def calls(self, recipe: Recipe) -> Iterator[Asked]:
        """Not yet."""
        yield from ()

    def incomparable(self, items: Sequence[Item]) -> str:
        """Always: the prompts are those of this recipe."""
        return "The prompts are those of this recipe; compare only contestants of this table."
