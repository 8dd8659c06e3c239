"""What a mixture's members are asked: whose parameters, which messages, how many answers."""

import json
from typing import Any

import pytest

from moaa.gateway.mixtures.members import Traits
from moaa.gateway.mixtures.settings import Online
from moaa.recipe import Member, Sampling
from tests.support.mixing import Says, Script, events, full, run, served, text_of, usage


async def test_the_clients_parameters_are_for_the_aggregator_alone():
    members = (
        Member(model="m1", sampling=Sampling(temperature=0.3, seed=5, max_tokens=9)),
        Member(model="m2"),
    )
    script = full(m1=Says(), m2=Says(), agg=Says())
    given: dict[str, Any] = {
        "temperature": 0.1,
        "top_p": 0.5,
        "n": 2,
        "seed": 1,
        "stop": ["x"],
        "logprobs": True,
        "top_logprobs": 3,
        "response_format": {"type": "json_object"},
        "max_completion_tokens": 77,
        "guided_choice": ["y"],
    }
    body = await run(script, served(*members), user="u", tools=[], store=True, **given).whole()
    assert [choice["index"] for choice in body["choices"]] == [0, 1]
    (aggregated,) = script.of("agg")
    assert {name: value for name, value in aggregated.items() if name != "messages"} == given | {
        "user": "u"
    }
    (first,), (second,) = script.of("m1"), script.of("m2")
    assert {name: first[name] for name in first if name != "messages"} == {
        "temperature": 0.3,
        "top_p": 1.0,
        "max_tokens": 9,
        "seed": 5,
    }
    assert second["temperature"] == 0.7
    assert "seed" not in second


@pytest.mark.parametrize("after", [{"content": ""}, {"content": " too"}])
async def test_a_server_may_say_something_after_its_end(after):
    class Talkative(Script):
        async def chunks(self, model, fields):
            async for data in super().chunks(model, fields):
                yield data
                if b'"stop"' in data:
                    choice = {"index": 0, "delta": after, "finish_reason": None}
                    yield json.dumps({"choices": [choice]}).encode()

    script = Talkative(**full(m1=Says(), m2=Says(), m3=Says(), agg=Says()).models)
    found = await events(run(script, stream=True))
    assert text_of(found) == "a b" + after["content"]
    assert len(found[-1]["moaa"]["members"]) == 4
    ends = [c["finish_reason"] for each in found if isinstance(each, dict) for c in each["choices"]]
    assert ends.count("stop") == 1


async def test_without_parameters_the_mixtures_own_hold_for_the_aggregator():
    mixture = served()
    script = full(m1=Says(), m2=Says(), m3=Says(), agg=Says())
    await run(script, mixture).whole()
    (fields,) = script.of("agg")
    assert (fields["temperature"], fields["max_tokens"]) == (0.7, 2048)
    assert "Several language models" in fields["messages"][0]["content"]
    script.calls.clear()
    await run(script, served(online=Online(references="last"))).whole()
    (message,) = script.of("agg")[0]["messages"]
    assert message["content"].startswith("q\n\nSeveral language models")


async def test_self_moa_is_one_request_with_n():
    script = Script(m1=Says(("x",), usage=usage(5, 6)), agg=Says(usage=usage(1, 1)))
    body = await run(script, served(Member(model="m1", sampling=Sampling(n=3)))).whole()
    assert [fields["n"] for fields in script.of("m1")] == [3]
    assert body["usage"]["total_tokens"] == 13
    assert [m["name"] for m in body["moaa"]["members"]] == ["m1", "agg"]


async def test_a_model_without_a_system_role_gets_none():
    script = full(m1=Says(), m2=Says(), m3=Says(), agg=Says())
    await run(script, traits={"agg": Traits(system_role=False)}).whole()
    (fields,) = script.of("agg")
    assert [message["role"] for message in fields["messages"]] == ["user"]
