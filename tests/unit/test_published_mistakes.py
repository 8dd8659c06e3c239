"""Mistakes of published mixture-of-agents code that must not happen here."""

import re
from copy import deepcopy
from typing import Any

import pytest

from moaa.errors import CallFailed, RowRejected
from moaa.mixture import converse, respond
from moaa.recipe import Member, Mixture, Sampling
from tests.support.scripted import Ask, last, system

FOUR = tuple(Member(model=f"m{i}") for i in range(1, 5))
MIXTURE = Mixture(
    proposers=FOUR,
    aggregator=Member(
        model="agg", sampling=Sampling(temperature=0.2, max_tokens=77, top_p=0.9, stop=("END",))
    ),
)


def proposal(call):
    return "the synthesis" if call.model == "agg" else f"proposal of {call.model} to <{last(call)}>"


@pytest.mark.parametrize("references", ["fenced", "plain"])
async def test_the_aggregator_sees_each_proposal_exactly_once_and_in_order(references):
    ask = Ask(proposal)
    mixture = MIXTURE.model_copy(update={"references": references})
    await respond(mixture, [{"role": "user", "content": "Why is the sky blue?"}], ask)
    (call,) = ask.of("agg")
    seen = "\n".join(message["content"] for message in call.messages)
    seen = re.sub(r"</?answer \w{8}>\n?", "", seen)
    expected = [f"{i}. proposal of m{i} to <Why is the sky blue?>" for i in range(1, 5)]
    assert [seen.count(text) for text in expected] == [1, 1, 1, 1]
    assert sorted(expected, key=seen.index) == expected
    assert "generations" not in seen
    assert "statistics" not in seen


@pytest.mark.parametrize("as_system", [None, "Answer in French."])
async def test_the_callers_messages_are_unchanged_and_the_instruction_never_nests(as_system):
    history: list[Any] = [
        *([{"role": "system", "content": as_system}] if as_system else []),
        {"role": "user", "content": "one"},
        {"role": "assistant", "content": "first"},
        {"role": "user", "content": "two"},
    ]
    before = deepcopy(history)
    ask = Ask(proposal)
    three = MIXTURE.model_copy(update={"layers": 3})
    for _ in range(2):
        await respond(three, history, ask)
        assert history == before
    for call in ask.calls:
        assert system(call).count("Answers of the models:") <= 1
        assert [m for m in call.messages if m["role"] != "system"] == [
            m for m in before if m["role"] != "system"
        ]


async def test_many_turns_inject_the_proposals_of_the_current_turn_only():
    ask = Ask(
        lambda call: f"synthesis of <{last(call)}>" if call.model == "agg" else proposal(call)
    )
    await converse(MIXTURE, "Be kind.", ["q1", "q2", "q3"], ask)
    for number, call in enumerate(ask.of("agg"), 1):
        assert system(call).count("Answers of the models:") == 1
        assert system(call).startswith("Be kind.\n\n")
        for other in range(1, 4):
            assert system(call).count(f"<q{other}>") == (4 if other == number else 0)
    for call in ask.of("m1"):
        assert system(call) == "Be kind."


async def test_the_final_call_is_made_with_the_aggregators_own_sampling():
    ask = Ask(proposal)
    await respond(MIXTURE, [{"role": "user", "content": "q"}], ask)
    assert ask.of("agg")[0].sampling == MIXTURE.aggregator.sampling
    assert ask.of("m1")[0].sampling == FOUR[0].sampling


async def test_a_failed_proposer_never_disappears_silently():
    def answer(call):
        return (
            CallFailed("timeout", "no answer within 600 s")
            if call.model == "m2"
            else proposal(call)
        )

    ask = Ask(answer)
    result = await respond(MIXTURE, [{"role": "user", "content": "q"}], ask)
    assert [(out.name, out.reason) for out in result.left_out] == [("m2", "timeout")]
    assert result.to_json()["left_out"] == [{"name": "m2", "layer": 0, "reason": "timeout"}]
    assert [p.name for p in result.layers[0]] == ["m1", "m3", "m4"]
    assert re.search(r"2\. <answer \w{8}>\nproposal of m3", system(ask.of("agg")[0]))
    assert "4. " not in system(ask.of("agg")[0])


async def test_too_few_proposals_reject_the_conversation_and_name_every_failure():
    def answer(call):
        return (
            CallFailed("timeout", "no answer within 600 s")
            if call.model in ("m2", "m4")
            else proposal(call)
        )

    ask = Ask(answer)
    with pytest.raises(RowRejected) as caught:
        await respond(MIXTURE, [{"role": "user", "content": "q"}], ask)
    assert caught.value.reason == "too few proposals"
    assert "m2" in caught.value.detail
    assert "m4" in caught.value.detail
    assert "timeout" in caught.value.detail
    assert ask.of("agg") == []
