"""Judges answers against a baseline's published answers: code that such benchmarks share."""

from __future__ import annotations

from collections.abc import Sequence

from moaa.artifacts.table import Row
from moaa.benchmarks.benchmark import Match, Played
from moaa.benchmarks.items import EntrantAnswer, Item
from moaa.benchmarks.judgements import compare, row_of
from moaa.chat.message import Ask
from moaa.recipe.schema import Judge


async def against_baseline(judge: Judge, match: Match, baseline: str, ask: Ask) -> Row:
    """Return the judgement of the entrant's answer (a) against the baseline's (b), as a row.

    Raises RowRejected if neither order could be judged.
    """
    (answers,) = match.answers
    judgement = await compare(judge, match, answers[-1].text, match.item.given["baseline"], ask)
    return {"model_b": baseline, **row_of(judgement)}


def answers_and_judgements(
    played: Played, name: str
) -> list[tuple[Item, tuple[EntrantAnswer, ...], Row]]:
    """Return the items whose answer was judged in both orders,
    with the answer and the judgement."""
    rows, answers = played.judgements.get((name,), {}), played.answers.get(name, {})
    return [
        (item, answers[item.id], rows[item.id])
        for item in played.items
        if item.id in answers and item.id in rows and rows[item.id]["p"] is not None
    ]


def baseline_answers(items: Sequence[Item]) -> list[str]:
    """Return the baseline's answers, one for each question."""
    return [item.given["baseline"] for item in items]


def fewer_tokens(given: int, published: int) -> list[str]:
    """Return the reason, if answers may have fewer tokens than most published ones."""
    if given >= published:
        return []
    return [f"answers have at most {given:,} tokens, most published ones {published:,}"]
