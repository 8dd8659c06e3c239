"""Rates one answer from 1 to 10, by one model or by a mixture of judges."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from moaa.chat.controls import Controls
from moaa.chat.message import Ask, Message
from moaa.errors import CallError, RowRejected
from moaa.mixture import Proposal, as_member, numbered, propose
from moaa.recipe.schema import Judge

RATINGS = tuple(str(rating) for rating in range(1, 11))
ATTEMPTS = 3
"""How many times a rating is asked for until one can be read."""
SOFT_FORM = "Reply with your rating, a whole number from 1 (worst) to 10 (best), and nothing else."
"""The end of the prompt when a grammar restricts the reply."""
PARSED_FORM = (
    "Explain your rating in a few sentences. Then end your reply with it alone on the last line, "
    "in this form: [[5]]."
)
_DOUBLE = re.compile(r"\[\[(\d+\.?\d*)\]\]")
_SINGLE = re.compile(r"\[(\d+\.?\d*)\]")


@dataclass(frozen=True, slots=True)
class Rated:
    """A rating, what the judge wrote, and what its proposers wrote before."""

    rating: float
    text: str
    assessments: tuple[Proposal, ...] = ()

    def to_json(self) -> dict[str, object]:
        """Return the entry of `ratings` of a row, without its turn."""
        return {
            "rating": self.rating,
            "text": self.text,
            "assessments": [
                {"name": a.name, "model": a.model, "text": a.text, "finish_reason": a.finish_reason}
                for a in self.assessments
            ],
        }


def is_alone(judge: Judge) -> bool:
    """Return whether one model reads and rates in one reply, as published judges do."""
    one = len(judge.proposers) == 1 and judge.proposers[0].model == judge.aggregator.model
    return one and judge.verdict == "parsed"


async def rate(judge: Judge, prompt: Sequence[Message], ask: Ask, controls: Controls) -> Rated:
    """Return the rating of the answer in `prompt`. The prompt is a published one: it asks for an
    explanation, and for a rating as [[n]].

    One model with parsed verdicts gets it unchanged. Otherwise the proposers answer it, and the
    aggregator rates with their assessments: under a grammar if its verdicts are soft. Raises
    RowRejected if no rating can be read, or a call fails.
    """
    aggregator = judge.aggregator
    if is_alone(judge):
        rating, text = await _ask(judge, as_member(aggregator, prompt), None, ask)
        return Rated(rating, text)
    assessments, left_out = await propose(judge.proposers, prompt, ask)
    if len(assessments) < judge.quorum:
        raise RowRejected("too few assessments", f"left out: {', '.join(map(str, left_out))}")
    soft = judge.verdict == "soft"
    shown = numbered(assessments, controls)
    question = prompt[-1]["content"]
    last = f"{question}\n\n[Assessments]\n{shown}\n\n{SOFT_FORM if soft else PARSED_FORM}"
    messages = [*prompt[:-1], Message(role="user", content=last)]
    rating, text = await _ask(
        judge, as_member(aggregator, messages), RATINGS if soft else None, ask
    )
    return Rated(rating, text, assessments)


async def _ask(
    judge: Judge, messages: list[Message], choices: Sequence[str] | None, ask: Ask
) -> tuple[float, str]:
    """Return the rating and the text that it was read from. If a reply has no rating the judge is
    asked again; the prompt then says so, because a judge at temperature 0 repeats itself."""
    aggregator, last = judge.aggregator, messages[-1]["content"]
    for attempt in range(1, ATTEMPTS + 1):
        again = f"\n\n(Attempt {attempt} of {ATTEMPTS}: the reply before had no rating.)"
        told = Message(role="user", content=last + (again if attempt > 1 else ""))
        try:
            reply = await ask(
                aggregator.model, [*messages[:-1], told], aggregator.sampling, choices=choices
            )
        except CallError as error:
            raise RowRejected(f"rating: {error.reason}", error.detail) from error
        try:
            return parsed(reply.text, last=not is_alone(judge)), reply.text
        except RowRejected:
            if attempt == ATTEMPTS:
                raise
    raise AssertionError("the last attempt returns or raises")


def parsed(text: str, *, last: bool = False) -> float:
    """Return the rating in a reply: of `[[n]]`, else of `[n]` (as FastChat reads it), else the
    whole reply. Raises RowRejected if there is none from 1 to 10.

    Of several ratings the first counts, as in FastChat; with `last` the last one: a judge that read
    assessments may quote their ratings, and was told to end with its own.
    """
    found = _DOUBLE.findall(text) or _SINGLE.findall(text) or [text.strip()]
    written = found[-1 if last else 0]
    try:
        rating = float(written)
    except ValueError:
        rating = 0.0
    if not 1 <= rating <= 10:
        raise RowRejected("rating unparseable", f"expected [[1]] to [[10]], got {text[-200:]!r}")
    return rating
