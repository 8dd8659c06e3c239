"""The method with a real engine and a small real model: what the mixture and the judge make of its
answers."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from moaa import judge, mixture, preference
from moaa.chat.client import Client
from moaa.chat.message import Ask, Call, Message
from moaa.chat.pool import Endpoint
from moaa.ledger import Ledger
from moaa.recipe import Judge, JudgeMember, JudgeSampling, Member, Mixture
from moaa.recipe.schema import Calls
from tests.support.real_engine import RealEngine

pytestmark = pytest.mark.real

SHORT = JudgeSampling(max_tokens=32)
JUDGE = Judge(
    proposers=tuple(
        JudgeMember(model="smol", name=name, system=f"You are {name}.", sampling=SHORT)
        for name in ("strict", "kind", "brief")
    ),
    aggregator=JudgeMember(model="smol", sampling=SHORT),
)
QUESTION: list[Message] = [{"role": "user", "content": "What is the capital of France?"}]
ANSWERS = [
    "The capital of France is Paris.",
    "I like trains.",
    "France has many towns; its capital is Paris, on the Seine.",
]


@pytest.fixture
async def ask(engine: RealEngine) -> AsyncIterator[Ask]:
    async with Client(Calls(), Ledger()) as client:
        client.pool("smol").add(Endpoint(engine.url, engine.model))

        async def ask(model, messages, sampling, *, choices=None, logprobs=False):
            return await client.send(
                Call(
                    model, tuple(messages), sampling, tuple(choices) if choices else None, logprobs
                )
            )

        yield ask


async def test_every_verdict_is_soft_and_every_criterion_one_of_the_eight(
    ask: Ask, engine: RealEngine
) -> None:
    before = engine.requests()
    judgements = await judge.tournament(JUDGE, QUESTION, ANSWERS, ask)
    assert engine.requests() - before == 3 * 9
    orders = [order for judgement in judgements for order in judgement.orders]
    assert all(order.soft and 0 < order.p < 1 for order in orders)
    assert all(order.verdict == ("A" if order.p > 0.5 else "B") for order in orders)
    assert {", ".join(order.criteria) for order in orders} <= set(judge.TRIPLES)
    assert all(len(order.assessments) == 3 and not order.left_out for order in orders)
    assert len({order.p for order in orders}) > 1  # the verdict depends on what is judged
    tally = judge.Tally()
    for judgement in judgements:
        tally.add(judgement)
    assert tally.hard == 0
    assert preference.pair(preference.rank(3, judgements)) is not None


async def test_a_conversation_of_two_turns_is_answered_by_a_mixture(ask: Ask) -> None:
    members = tuple(
        Member(model="smol", name=name, sampling=SHORT, system=f"You are {name}.")
        for name in ("a poet", "a cook")
    )
    chosen = Mixture(proposers=members, aggregator=Member(model="smol", sampling=SHORT), layers=3)
    done = await mixture.converse(chosen, None, ["Name a fruit.", "And a colour it may have?"], ask)
    assert [message["role"] for message in done.messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
    ]
    assert [len(layer) for turn in done.turns for layer in turn.layers] == [2, 2, 2, 2]
    assert all(message["content"].strip() for message in done.messages)
