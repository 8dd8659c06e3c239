"""Pairs of answers, judged in both orders: criteria, assessments, verdict.

Paper, mixture of agents as a judge.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

from moaa import templates
from moaa.chat.message import Ask, Choice, Message
from moaa.concurrency import together
from moaa.errors import CallError, RowRejected
from moaa.judge import criteria, verdict
from moaa.judge.judgement import Judgement, Order, merged
from moaa.mixture import LeftOut, Proposal, as_member, numbered, propose
from moaa.recipe import Judge, Sampling

CRITERIA_TOKENS = 64
"""Room for the longest triple: a smaller `max_tokens` of the aggregator must not cut it."""


class Comparison(NamedTuple):
    """What the judge sees of a pair. The fields are the placeholders of the templates."""

    query: str
    answer_a: str
    answer_b: str


async def compare(
    judge: Judge,
    query: Sequence[Message],
    a: str,
    b: str,
    ask: Ask,
    *,
    indices: tuple[int, int] = (0, 1),
) -> Judgement:
    """How much better answer `a` is than `b`, judged in both orders (9 calls with three proposers).

    `query` is the conversation that both answer; it ends with the user. `indices` name the answers
    in the result. Raises `RowRejected` if a step fails for good, or if the aggregator's text cannot
    be parsed.
    """
    question = rendered(query)
    picked: tuple[str, ...] | None = None
    if judge.criteria == "all":
        picked = tuple(criteria.CRITERIA)
    elif judge.criteria == "per-pair":
        picked = await pick_criteria(judge, Comparison(question, a, b), ask)

    async def in_order(first: int, second: int, comparison: Comparison) -> Order:
        names = picked or await pick_criteria(judge, comparison, ask)
        assessments, left_out = await assess(judge, comparison, names, ask)
        decision, text = await decide(judge, comparison, names, assessments, ask)
        return Order(
            first,
            second,
            names,
            assessments,
            left_out,
            decision.letter,
            decision.p,
            decision.soft,
            text,
        )

    i, j = indices
    ab, ba = await together(
        [in_order(i, j, Comparison(question, a, b)), in_order(j, i, Comparison(question, b, a))]
    )
    return merged(ab, ba)


async def tournament(
    judge: Judge, query: Sequence[Message], answers: Sequence[str], ask: Ask
) -> list[Judgement]:
    """All pairs of the answers, judged at the same time: (0, 1), (0, 2), …

    90 calls for 5 answers and 3 proposers.
    """
    pairs = combinations(range(len(answers)), 2)
    return await together(
        compare(judge, query, answers[i], answers[j], ask, indices=(i, j)) for i, j in pairs
    )


async def pick_criteria(judge: Judge, comparison: Comparison, ask: Ask) -> tuple[str, ...]:
    """Step 1: the three of the eight criteria that the aggregator picks."""
    prompt = _prompt(
        judge, "criteria", comparison, criteria=criteria.described(tuple(criteria.CRITERIA))
    )
    sampling = judge.aggregator.sampling
    room = sampling.model_copy(update={"max_tokens": max(sampling.max_tokens, CRITERIA_TOKENS)})
    # Servers without grammars refuse a request that names one; recipes give those `parsed`.
    triples = criteria.TRIPLES if judge.verdict == "soft" else None
    choice = await _ask_aggregator(
        judge, "criteria", prompt + criteria.REPLY_FORM, room, ask, choices=triples
    )
    return criteria.parse(choice.text)


async def assess(
    judge: Judge, comparison: Comparison, names: Sequence[str], ask: Ask
) -> tuple[tuple[Proposal, ...], tuple[LeftOut, ...]]:
    """Step 2: each proposer's assessment of both answers by these criteria; and the proposers left
    out."""
    prompt = _prompt(judge, "assess", comparison, criteria=criteria.described(names))
    assessments, left_out = await propose(
        judge.proposers, [Message(role="user", content=prompt)], ask
    )
    if len(assessments) < judge.quorum:
        raise RowRejected(
            "too few assessments",
            f"{len(assessments)} assessments, {judge.quorum} needed; "
            f"left out: {', '.join(map(str, left_out))}",
        )
    return assessments, left_out


async def decide(
    judge: Judge,
    comparison: Comparison,
    names: Sequence[str],
    assessments: Sequence[Proposal],
    ask: Ask,
) -> tuple[verdict.Verdict, str]:
    """Step 3: the aggregator's verdict, and the text it wrote."""
    prompt = _prompt(
        judge,
        "verdict",
        comparison,
        criteria=criteria.described(names),
        assessments=numbered(assessments),
    )
    prompt += verdict.REPLY_FORM[judge.verdict]
    sampling = judge.aggregator.sampling
    if judge.verdict == "parsed":
        choice = await _ask_aggregator(judge, "verdict", prompt, sampling, ask)
        return verdict.parsed(choice), choice.text
    choice = await _ask_aggregator(
        judge, "verdict", prompt, sampling, ask, choices=verdict.CHOICES, logprobs=True
    )
    return verdict.soft(choice), choice.text


def check_instructions(judge: Judge) -> None:
    """Raise `RecipeError` if one of the judge's templates cannot be filled: better before the
    engines start than after."""
    nothing = Comparison("", "", "")
    _prompt(judge, "criteria", nothing, criteria="")
    _prompt(judge, "assess", nothing, criteria="")
    _prompt(judge, "verdict", nothing, criteria="", assessments="")


def rendered(query: Sequence[Message]) -> str:
    """The conversation as text for a judge: a single message as it is, else each under its
    role."""
    if len(query) == 1:
        return query[0]["content"]
    return "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in query)


def _prompt(judge: Judge, step: str, comparison: Comparison, **more: str) -> str:
    field = f"{step}_instruction"
    return (
        templates.fill(
            f"judge.{field}",
            getattr(judge, field) or templates.text(step),
            {**comparison._asdict(), **more},
        )
        + "\n\n"
    )


async def _ask_aggregator(
    judge: Judge,
    step: str,
    prompt: str,
    sampling: Sampling,
    ask: Ask,
    *,
    choices: Sequence[str] | None = None,
    logprobs: bool = False,
) -> Choice:
    messages = as_member(judge.aggregator, [Message(role="user", content=prompt)])
    try:
        reply = await ask(
            judge.aggregator.model, messages, sampling, choices=choices, logprobs=logprobs
        )
    except CallError as error:
        raise RowRejected(f"{step}: {error.reason}", error.detail) from error
    return reply.choices[0]
