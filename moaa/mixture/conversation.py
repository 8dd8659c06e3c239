"""Answers every user turn in order; the answers become the history (paper, Eq. 3)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask, Message, opening
from moaa.errors import RowRejected
from moaa.mixture.answers import Answer, Conversation
from moaa.mixture.layers import respond
from moaa.recipe import Mixture
from moaa.recipe.method import CutAnswers

CUT = "answer cut"
"""The reason of a row with an answer that was cut at max_tokens."""
CUT_REMEDY = (
    "cut at max_tokens. Raise sampling.max_tokens, ask for shorter answers, or set cut_answers to "
    "keep; a larger runtime.max_rejected_share lets the stage continue without these rows."
)

Respond: TypeAlias = Callable[[Sequence[Message]], Awaitable[Answer]]
"""Answers the last user turn of a conversation."""


async def converse(
    mixture: Mixture,
    system: str | None,
    user_turns: Sequence[str],
    ask: Ask,
    *,
    cut_answers: CutAnswers = "keep",
    controls: Controls = KNOWN,
) -> Conversation:
    """Answer every user turn in order; the mixture's own answers become the history (paper, Eq. 3).

    Raises `RowRejected` as `turn_by_turn` does.
    """
    return await turn_by_turn(
        lambda history: respond(mixture, history, ask, controls),
        system,
        user_turns,
        cut_answers=cut_answers,
        controls=controls,
    )


async def turn_by_turn(
    answer_of: Respond,
    system: str | None,
    user_turns: Sequence[str],
    *,
    cut_answers: CutAnswers = "keep",
    controls: Controls = KNOWN,
) -> Conversation:
    """Get an answer to every user turn in order; the answers become the history.

    Raises `RowRejected` when a turn gets no answer, or (unless `cut_answers` is `keep`) one that
    was cut at max_tokens; later turns are then not asked. The messages have the answers as they
    were written; the history of later turns has them neutralised.
    """
    messages: list[Message] = []
    turns: list[Answer] = []
    for number, question in enumerate(user_turns, 1):
        messages += [Message(role="user", content=question)] if turns else opening(system, question)
        history = [
            Message(role=each["role"], content=controls.neutralised(each["content"]))
            if each["role"] == "assistant"
            else each
            for each in messages
        ]
        try:
            answer = await answer_of(history)
            if answer.finish_reason == "length" and cut_answers != "keep":
                raise RowRejected(CUT, CUT_REMEDY)
        except RowRejected as error:
            raise RowRejected(
                error.reason, f"turn {number} of {len(user_turns)}: {error.detail}"
            ) from error
        messages.append(Message(role="assistant", content=answer.text))
        turns.append(answer)
    return Conversation(tuple(messages), tuple(turns))
