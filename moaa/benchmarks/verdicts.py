"""Verdicts of one judge in Arena-Hard's own form: five levels, from A>>B to B>>A, in one reply."""

from __future__ import annotations

import re
from typing import Final

from moaa import templates
from moaa.benchmarks.benchmark import Match
from moaa.chat.message import Ask, Message
from moaa.concurrency import together
from moaa.errors import CallError, RowRejected
from moaa.judge import Judgement, Lost, Order
from moaa.judge.judgement import merged
from moaa.mixture import as_member
from moaa.recipe.schema import Judge

SCORES: Final = {
    "A>>B": 1.0, "A>B": 1.0, "A=B": 0.5, "B>A": 0.0, "B>>A": 0.0,
    "B<<A": 1.0, "B<A": 1.0, "B=A": 0.5, "A<B": 0.0, "A<<B": 0.0,
}  # fmt: skip
"""The win of the answer shown first: 1, 0.5 (a tie) or 0."""
CLEAR: Final = 3
"""How many times a clear verdict (>> or <<) counts."""
_DOUBLE = re.compile(r"\[\[([AB<>=]+)\]\]")
_SINGLE = re.compile(r"\[([AB<>=]+)\]")


async def five_verdicts(judge: Judge, match: Match, a: str, b: str, ask: Ask) -> Judgement:
    """Return the judgement of two answers in both orders, one call each, by the published prompt.

    The `verdict` text of each order has the verdict of five levels; `weight_of` reads it.
    """

    async def in_order(one: int, other: int) -> Order | Lost:
        texts = [match.controls.neutralised(each) for each in (a, b)]
        shown = {"answer_a": texts[one], "answer_b": texts[other]}
        question = match.controls.neutralised(match.item.messages[-1]["content"])
        prompt = templates.fill(
            "arena_hard", templates.text("arena_hard"), {"question": question, **shown}
        )
        system = Message(role="system", content=templates.text("arena_hard_system"))
        messages = as_member(judge.aggregator, [system, Message(role="user", content=prompt)])
        try:
            reply = await ask(judge.aggregator.model, messages, judge.aggregator.sampling)
            verdict = parsed(reply.text)
        except RowRejected as error:
            return Lost(one, other, error.reason, error.detail)
        except CallError as error:
            return Lost(one, other, f"verdict: {error.reason}", error.detail)
        p = SCORES[verdict]
        letter = "A" if p >= 0.5 else "B"
        return Order(one, other, (), (), (), letter, p, soft=False, text=reply.text)

    ab, ba = await together([in_order(0, 1), in_order(1, 0)])
    return merged(ab, ba)


def parsed(text: str) -> str:
    """Return the last verdict in a reply, of `[[A>B]]` or `[A>B]`. Raises RowRejected if it has
    none of the five."""
    found = _DOUBLE.findall(text.upper()) or _SINGLE.findall(text.upper())
    if not found or found[-1] not in SCORES:
        raise RowRejected(
            "verdict unparseable", f"expected [[A>B]] or another, got {text[-200:]!r}"
        )
    verdict: str = found[-1]
    return verdict


def weight_of(text: str) -> int:
    """Return how many times the verdict in a reply counts: 3 if it is a clear one."""
    verdict = parsed(text)
    return CLEAR if ">>" in verdict or "<<" in verdict else 1
