"""Code that benchmarks with a judge share: its name, pairs of answers, the plan's calls."""

from __future__ import annotations

from typing import Any, Final

from moaa import judge
from moaa.benchmarks.benchmark import Match
from moaa.chat.message import Ask
from moaa.errors import RowRejected
from moaa.judge import Judgement
from moaa.recipe.schema import Judge

_CRITERIA: Final = {
    "all": "all criteria",
    "per-order": "criteria per order",
    "per-prompt": "criteria per prompt",
}


def name_of(given: Judge) -> str:
    """Return a judge's name, which is part of every metric's name: `qwen`, or `mixture of qwen,
    llama and gemma, all criteria`.

    Settings that make it another judge are in it, if they are not the default.
    """
    settings = [_CRITERIA[given.criteria]] if given.criteria in _CRITERIA else []
    if given.verdict == "parsed":
        settings.append("parsed verdicts")
    return ", ".join([members_of(given), *settings])


def members_of(given: Judge) -> str:
    """Return which models judge, whatever their settings: `qwen`, or `mixture of qwen, llama and
    gemma`.

    The last one of a mixture is the aggregator, which decides.
    """
    members = list(dict.fromkeys(member.label for member in given.proposers))
    if members == [given.aggregator.label]:
        return given.aggregator.label
    return f"mixture of {', '.join(members)} and {given.aggregator.label}"


def row_of(judgement: Judgement) -> dict[str, Any]:
    """Return a judgement as a row. Raises RowRejected if neither order could be judged."""
    if len(judgement.lost) == 2:
        raise RowRejected(judgement.lost[0].reason, judgement.lost[0].detail)
    return judgement.to_json()


async def compare(given: Judge, match: Match, a: str, b: str, ask: Ask) -> Judgement:
    """Return how much better text `a` is than `b`, judged in both orders. Equal texts are a tie."""
    if a == b:
        return judge.tie()
    return await judge.compare(given, match.item.messages, a, b, ask, controls=match.controls)
