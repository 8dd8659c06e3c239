"""Who writes the answers of the SFT data, instead of the mixture (the paper's ablations).

alone     one model, turn by turn: a teacher, or one of the proposers
each_of   all proposers, for a conversation of each
drawn     one of the proposers, drawn for each conversation
best      the best of the proposals and the aggregator's answer, by a labeller
original  the answers in the data set
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace

from moaa import preference
from moaa.chat.controls import KNOWN, Controls
from moaa.chat.message import Ask, Message
from moaa.errors import CallError, RowRejected
from moaa.labellers import Labeller
from moaa.mixture import (
    Answer,
    Conversation,
    Proposal,
    Respond,
    as_member,
    respond,
    turn_by_turn,
    with_distinct_keys,
)
from moaa.recipe import Member, Mixture
from moaa.recipe.method import CutAnswers

NO_ORIGINAL = "no answer in the data set"


def alone(member: Member, ask: Ask) -> Respond:
    """Return what answers with this member alone. Its answer is also the only proposal."""
    sampling = once(member).sampling

    async def answer(history: Sequence[Message]) -> Answer:
        try:
            reply = await ask(member.model, as_member(member, history), sampling)
        except CallError as error:
            raise RowRejected(f"{member.label}: {error.reason}", error.detail) from error
        choice = reply.choices[0]
        if choice.missing:
            raise RowRejected(f"{member.label}: {choice.missing}", "it gave no answer")
        text = choice.text.strip()
        only = Proposal(member.label, member.model, 0, text, choice.finish_reason)
        return Answer(text, choice.finish_reason, ((only,),))

    return answer


def once(member: Member) -> Member:
    """Return the member with one answer to a call."""
    return member.model_copy(update={"sampling": member.sampling.model_copy(update={"n": 1})})


def each_of(proposers: Sequence[Member]) -> list[Member]:
    """Return the proposers as they all answer one conversation, each in calls of its own: equal
    ones (Self-MoA) would else share one answer."""
    return list(with_distinct_keys([once(member) for member in proposers]))


def drawn(proposers: Sequence[Member], conversation: str) -> Member:
    """Return the proposer that answers the conversation with this id: always the same one."""
    return random.Random(f"generate {conversation}").choice(list(proposers))


def best(
    mixture: Mixture,
    labeller: Labeller,
    conversation: str,
    ask: Ask,
    *,
    cut_answers: CutAnswers = "keep",
    controls: Controls = KNOWN,
) -> Respond:
    """Return what answers with the best of the last layer's proposals and the aggregator's answer.

    The aggregator's answer becomes the last of the proposals. A text that `max_tokens` cut may be
    the best only if `cut_answers` is `keep`, or if all are cut. Raises `RowRejected` if the best
    one depends on a verdict that is missing.
    """

    async def answer(history: Sequence[Message]) -> Answer:
        made = await respond(mixture, history, ask, controls)
        own = Proposal(
            mixture.aggregator.label,
            mixture.aggregator.model,
            len(made.layers),
            made.text,
            made.finish_reason,
        )
        candidates = list({each.text: each for each in (own, *made.layers[-1])}.values())
        whole = [each for each in candidates if each.finish_reason != "length"]
        if cut_answers != "keep" and whole:
            candidates = whole
        chosen = candidates[0]
        if len(candidates) > 1:
            texts = [each.text for each in candidates]
            labels = await labeller(f"{conversation} {len(history)}", history, texts, ask)
            chosen = candidates[preference.best(labels.ranking)]
        layers = (*made.layers, (own,))
        return replace(made, text=chosen.text, finish_reason=chosen.finish_reason, layers=layers)

    return answer


async def original(
    system: str | None, user_turns: Sequence[str], answers: Sequence[str]
) -> Conversation:
    """Return the conversation with the data set's own answers. Raises `RowRejected` if a turn has
    no answer."""
    given = iter(answers)
    if len(answers) < len(user_turns) or not all(text.strip() for text in answers):
        raise RowRejected(
            NO_ORIGINAL,
            f"{len(user_turns)} user turns, {sum(bool(text.strip()) for text in answers)} answers",
        )

    async def answer(history: Sequence[Message]) -> Answer:
        return Answer(next(given).strip(), "stop", ())

    return await turn_by_turn(answer, system, user_turns)
