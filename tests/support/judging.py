"""Judges for tests: an `ask` whose verdicts are a function of the two answers as they are shown."""

from __future__ import annotations

import asyncio
import hashlib
import math
import re
from collections.abc import Callable, Sequence

from moaa.artifacts.table import Row
from moaa.benchmarks import Benchmark, Entrant, EntrantAnswer, Item, Played
from moaa.benchmarks.benchmark import Match
from moaa.chat.message import Call, Choice, Reply
from moaa.errors import RowRejected
from moaa.judge.criteria import REPLY_FORM
from tests.support.scripted import Ask, last

Verdict = Callable[[str, str, str], float]
"""Gets the model and both answers as shown; gives the probability that the first is better."""


def judging(p_first: Verdict) -> Ask:
    """An `ask` that picks criteria, assesses, and gives a soft verdict by `p_first`."""

    def answer(call: Call) -> str | Reply:
        if not call.choices and not call.logprobs:
            return f"assessment by {call.model}"
        if last(call).endswith(REPLY_FORM):
            return "Relevance, Accuracy, Clarity"
        p = min(max(p_first(call.model, *shown(call)), 1e-9), 1 - 1e-9)
        tokens = ({"A": math.log(p), "B": math.log(1 - p)},)
        return Reply((Choice("A" if p > 0.5 else "B", tokens=tokens),))

    return Ask(answer)


def shown(call: Call) -> tuple[str, str]:
    """The two answers of a judge's prompt, in the order shown."""
    found = re.findall(r"<answer_[ab] (\w+)>\n(.*?)\n</answer_[ab] \1>", last(call), re.DOTALL)
    (_, first), (_, second) = found
    return first, second


def fraction(text: str) -> float:
    """From 0 to 1: by chance, but always the same for this text."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32


def play(
    benchmark: Benchmark,
    items: Sequence[Item],
    entrants: Sequence[Entrant],
    ask: Ask,
    answers: dict[str, dict[str, tuple[EntrantAnswer, ...]]] | None = None,
) -> Played:
    """Every match of the benchmark judged, as the stage does it; rejected ones are left out."""
    by_name = {each.name: each for each in entrants}
    known = answers or {}
    judgements: dict[tuple[str, ...], dict[str, Row]] = {}

    async def all_matches() -> None:
        for names in benchmark.matches(list(by_name)):
            rows = judgements.setdefault(names, {})
            for item in items:
                match = Match(
                    item,
                    tuple(by_name[name] for name in names),
                    tuple(known[name][item.id] for name in names) if known else (),
                )
                try:
                    rows[item.id] = await benchmark.judge_match(match, ask)
                except RowRejected:
                    continue

    asyncio.run(all_matches())
    return Played(items, list(by_name), known, judgements)
