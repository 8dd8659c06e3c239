"""The mixture: what each layer and the aggregator are shown."""

import asyncio
import json
import re
import string

import pytest

from moaa import templates
from moaa.chat.message import Choice, Message, Reply
from moaa.errors import RecipeError
from moaa.mixture import converse, numbered, respond, with_references
from moaa.recipe import Member, Mixture, Sampling
from tests.support.mixtures import Q, mixture, named
from tests.support.scripted import Ask, last, system


async def test_layer_0_sees_the_bare_conversation_and_later_layers_the_answers_before():
    asked: dict[str, int] = {}

    def answer(call):
        asked[call.model] = asked.get(call.model, -1) + 1
        return f"{call.model} in layer {asked[call.model]}"

    result = await respond(mixture(layers=4), Q, ask := Ask(answer))
    for model in ("m1", "m2", "m3"):
        bare, second, third = ask.of(model)
        assert list(bare.messages) == Q
        for call, before in ((second, 0), (third, 1)):
            assert all(f"{i}. m{i} in layer {before}" in system(call) for i in (1, 2, 3))
            assert f"in layer {1 - before}" not in system(call)
    (final,) = ask.of("agg")
    assert system(final).endswith("1. m1 in layer 2\n\n2. m2 in layer 2\n\n3. m3 in layer 2")
    assert [[p.layer for p in layer] for layer in result.layers] == [[0] * 3, [1] * 3, [2] * 3]
    assert len(ask.calls) == 10


async def test_the_instruction_is_the_recipes_or_the_built_in_one():
    await respond(mixture(), Q, ask := Ask(named))
    assert system(ask.of("agg")[0]).startswith(templates.text("aggregate") + "\n\n1. from m1")
    await respond(mixture(instruction="Merge $these {0}:"), Q, ask := Ask(named))
    assert system(ask.of("agg")[0]) == "Merge $these {0}:\n\n1. from m1\n\n2. from m2\n\n3. from m3"


async def test_a_persona_stands_before_the_conversations_system_message():
    members = (
        Member(model="m", name="bare"),
        Member(model="m", name="poet", system="You are a poet."),
    )
    history: list[Message] = [{"role": "system", "content": "Answer in French."}, *Q]
    await respond(mixture(*members, layers=3), history, ask := Ask(named))
    first_bare, first_poet, later_bare, later_poet = [system(call) for call in ask.of("m")]
    assert first_bare == "Answer in French."
    assert first_poet == "You are a poet.\n\nAnswer in French."
    assert later_bare.startswith("Answer in French.\n\nSeveral language models")
    assert later_poet == f"You are a poet.\n\n{later_bare}"


async def test_a_persona_without_a_system_message_makes_one():
    await respond(mixture(Member(model="m", system="You are a poet.")), Q, ask := Ask(named))
    assert list(ask.of("m")[0].messages) == [{"role": "system", "content": "You are a poet."}, *Q]


async def test_the_aggregator_may_have_a_persona():
    chair = Mixture(
        proposers=(Member(model="m"),), aggregator=Member(model="agg", system="You edit.")
    )
    await respond(chair, Q, ask := Ask(named))
    assert system(ask.of("agg")[0]).startswith("You edit.\n\nSeveral language models")


async def test_self_moa_takes_n_proposals_from_one_call():
    members = (Member(model="m", sampling=Sampling(n=3)), Member(model="other"))
    ask = Ask(lambda call: ["x", "y", "z"] if call.model == "m" else "w")
    result = await respond(mixture(*members), Q, ask)
    assert len(ask.of("m")) == 1
    assert [(p.name, p.text) for p in result.layers[0]] == [
        ("m#1", "x"),
        ("m#2", "y"),
        ("m#3", "z"),
        ("other", "w"),
    ]
    assert system(ask.of("agg")[0]).endswith("1. x\n\n2. y\n\n3. z\n\n4. w")


async def test_proposers_that_differ_in_name_only_make_calls_of_their_own():
    same = Sampling(temperature=0.7, seed=1)
    members = tuple(Member(model="m", name=name, sampling=same) for name in ("x", "y", "z"))
    others = (
        Member(model="m", name="poet", system="You are a poet.", sampling=same),
        Member(model="m", name="cold"),
    )
    await respond(mixture(*members, *others, layers=3), Q, ask := Ask(named))
    assert len({call.key for call in ask.of("m")}) == len(ask.of("m")) == 2 * 5
    assert [type(call.sampling) is Sampling for call in ask.of("m")[:5]] == [
        True,
        False,
        False,
        True,
        True,
    ]
    assert [call.sampling.seed for call in ask.of("m")[:5]] == [1, 1 + 2**16, 1 + 2**17, 1, None], (
        "a server repeats itself under the same seed"
    )
    again = Ask(named)
    await respond(mixture(*members, *others, layers=3), Q, again)
    assert [call.key for call in again.calls] == [call.key for call in ask.calls], (
        "a resumed conversation finds its calls"
    )


async def test_the_tags_carry_another_code_in_the_next_layer():
    """Models of a later layer may repeat the code that they saw."""
    await respond(
        mixture(references="fenced", layers=3), Q, ask := Ask(lambda call: system(call) or "first")
    )
    (second, final) = (system(ask.of(model)[-1]) for model in ("m1", "agg"))
    (mark,) = set(re.findall(r"<answer (\w{8})>", second))
    assert f"code {mark}" in final, "the models repeat what they saw"
    own = re.findall(r"^\d\. <answer (\w{8})>$", final, re.M)[0]
    assert own != mark
    assert final.count(f"</answer {own}>") == 3


async def test_proposers_of_a_layer_run_at_the_same_time():
    arrived = asyncio.Barrier(3)

    async def ask(model, messages, sampling, **_):
        if model != "agg":
            await asyncio.wait_for(arrived.wait(), 2)
        return Reply((Choice("x"),))

    answer = await respond(mixture(layers=3), Q, ask)
    assert [len(layer) for layer in answer.layers] == [3, 3]


async def test_a_conversation_goes_on_with_the_mixtures_own_answers():
    ask = Ask(lambda call: f"answer to {last(call)}" if call.model == "agg" else named(call))
    done = await converse(mixture(), "Be kind.", ["q1", "q2"], ask)
    assert list(done.messages) == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "answer to q1"},
        {"role": "user", "content": "q2"},
        {"role": "assistant", "content": "answer to q2"},
    ]
    assert [list(call.messages) for call in ask.of("m2")] == [
        list(done.messages[:2]),
        list(done.messages[:4]),
    ]
    row = json.loads(json.dumps(done.to_json()))
    assert row["messages"] == list(done.messages)
    assert [turn["answer"] for turn in row["turns"]] == ["answer to q1", "answer to q2"]
    assert set(row["turns"][0]) == {"proposals", "left_out", "answer", "finish_reason"}
    assert set(row["turns"][0]["proposals"][0]) == {
        "name",
        "model",
        "layer",
        "text",
        "finish_reason",
    }


async def test_a_conversation_without_a_system_message_starts_with_the_user():
    done = await converse(mixture(), None, ["q1"], Ask(named))
    assert [message["role"] for message in done.messages] == ["user", "assistant"]


def test_references_copy_the_history():
    history: list[Message] = [{"role": "system", "content": "s"}, *Q]
    changed = with_references(history, [], mixture())
    changed[0]["content"] = "changed"
    changed.append({"role": "user", "content": "more"})
    assert history == [{"role": "system", "content": "s"}, *Q]
    assert numbered([]) == ""


def test_the_aggregate_instruction_has_no_placeholders_and_the_others_only_their_own():
    used = {
        name: set(string.Template(templates.text(name)).get_identifiers())
        for name in ("aggregate", "criteria", "assess", "verdict")
    }
    pair = {"query", "answer_a", "answer_b"}
    assert used == {
        "aggregate": set(),
        "criteria": pair | {"criteria"},
        "assess": pair | {"criteria"},
        "verdict": pair | {"criteria", "assessments"},
    }


def test_a_template_is_filled_once():
    assert templates.fill("f", "$a then $b, $$5", {"a": "$b", "b": "${a}"}) == "$b then ${a}, $5"
    with pytest.raises(RecipeError, match="f uses \\$c"):
        templates.fill("f", "$a $b $c", {"a": "", "b": ""})
