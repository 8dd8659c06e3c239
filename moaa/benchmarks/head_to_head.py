"""Head to head: every pair of contestants on the run's held-out prompts, judged in both orders."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, ClassVar, Final

from moaa import statistics
from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Benchmark, Match, Played, Score
from moaa.benchmarks.items import Item
from moaa.benchmarks.judgements import compare
from moaa.chat.message import Ask, opening
from moaa.declaration import RoleCalls
from moaa.plan.calls import answering, judging, sizes
from moaa.recipe import evaluation
from moaa.recipe.evaluation import HEAD_TO_HEAD
from moaa.recipe.schema import Recipe

WIN_RATE: Final = "win rate"
SOFT: Final = "mean probability to win"


class HeadToHead(Benchmark[evaluation.HeadToHead]):
    """Win rates of every pair of contestants."""

    name: ClassVar[str] = HEAD_TO_HEAD
    title: ClassVar[str] = "Head to head"
    protocol: ClassVar[str] = (
        "Each contestant answers the first turn of the held-out prompts; the judge compares every "
        "pair of answers in both orders. Equal answers are a tie."
    )

    def items(self, rows: Iterable[Row]) -> list[Item]:
        """Return the first turn of each held-out prompt."""
        return held_out(rows)

    def matches(self, entrants: Sequence[str]) -> list[tuple[str, ...]]:
        """Return every pair; the later contestant comes first: dpo against base."""
        return [(later, earlier) for earlier, later in combinations(entrants, 2)]

    async def judge_match(self, match: Match, ask: Ask) -> Row:
        """Return the judgement of both answers; `p`:
        the probability that the first entrant's is better."""
        (a,), (b,) = match.answers
        return (await compare(self.judge, match, a.text, b.text, ask)).to_json()

    def scores(self, played: Played) -> list[Score]:
        """Return for each pair the win rate, the mean probability to win, and the win rate at equal
        length. The main number is the win rate against the first contestant."""
        first = next(iter(played.entrants), "")
        found: list[Score] = []
        for (model, against), rows in played.judgements.items():
            judged = {id: row["p"] for id, row in rows.items() if row["p"] is not None}
            if not judged:
                continue
            p = list(judged.values())
            wins, ties = sum(each > 0.5 for each in p), sum(each == 0.5 for each in p)
            rate = statistics.share(wins + ties / 2, len(p))
            counts = {"wins": wins, "ties": ties}
            found += [
                Score(model, WIN_RATE, rate, against, main=against == first, about=counts),
                Score(model, SOFT, statistics.mean(p), against),
            ]
            if len(p) >= statistics.FEWEST:
                lengths = tuple(
                    [len(played.answers[who][id][0].text) for id in judged]
                    for who in (model, against)
                )
                adjusted = statistics.length_adjusted(p, (lengths[0], lengths[1]))
                found.append(Score(model, "win rate at equal length", adjusted, against))
        return found

    def calls(self, recipe: Recipe) -> Iterator[RoleCalls]:
        """Yield one answer of each contestant to each prompt,
        and all pairs judged in both orders."""
        names = recipe.measured
        for _, prompts, _ in sizes(recipe, "evaluation"):
            answer = min(recipe.plan.answer_tokens, recipe.evaluate.sampling.max_tokens)
            yield from answering(recipe, prompts, 1, answer)
            pairs = prompts * len(names) * (len(names) - 1) / 2
            yield from judging(recipe, self.judge, pairs, answer)

    def incomparable(self, items: Sequence[Item]) -> str:
        """Never empty: the prompts belong to this recipe."""
        return "The prompts are those of this recipe: compare only contestants of this table."


def held_out(rows: Iterable[Row]) -> list[Item]:
    """Return the first turn of each held-out prompt."""
    return [
        Item(
            id=row["id"],
            messages=tuple(opening(row["system"], row["turns"][0])),
            group=row.get("source", ""),
        )
        for row in rows
    ]


def win_rates(scores: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the win rate of each pair among the benchmark's scores, with its wins and ties; `soft`
    is the mean probability to win."""
    soft = {(each["entrant"], each["against"]): each for each in scores if each["metric"] == SOFT}
    found = []
    for score in scores:
        if score["metric"] == WIN_RATE:
            who = {"model": score["entrant"], "against": score["against"]}
            mean = soft[who["model"], who["against"]]
            counts = {name: int(score["about"][name]) for name in ("wins", "ties")}
            rate = {"n": score["n"], "rate": score["value"]}
            rate |= {"low": score["low"], "high": score["high"], "soft": mean["value"]}
            found.append({**who, **counts, **rate, **_ends("soft", mean)})
    return found


def _ends(name: str, score: Mapping[str, Any]) -> dict[str, float]:
    return {f"{name}_low": score["low"], f"{name}_high": score["high"]}
