"""Proposals of a served mixture: used again, shared in flight, shown while one waits."""

import asyncio

import pytest

from moaa.chat.message import Call, Choice, Reply
from moaa.gateway.mixtures.proposals import Answered, Proposals
from moaa.gateway.wire import ApiError
from moaa.recipe import Member, Sampling
from tests.support.mixing import Says, Script, events, run, served, text_of

USAGE = {"prompt_tokens": 10, "completion_tokens": 2}
COLD = Sampling(temperature=0)
SEEDED = Sampling(seed=3)


def two(first: Sampling = COLD, second: Sampling = SEEDED):
    return served(Member(model="m1", sampling=first), Member(model="m2", sampling=second))


def script(**more: Says) -> Script:
    says = {name: Says((f"of {name}",), usage=USAGE) for name in ("m1", "m2", "agg")}
    return Script(**(says | more))


async def test_proposals_that_would_be_the_same_are_asked_for_once():
    engines, kept = script(), Proposals(10, 60)
    first = await run(engines, two(), kept).whole()
    again = await run(engines, two(), kept).whole()
    assert [len(engines.of(name)) for name in ("m1", "m2", "agg")] == [1, 1, 2]
    assert first["usage"]["total_tokens"] == 36
    assert again["usage"]["total_tokens"] == 12, "only the aggregator was asked"
    assert [each.get("shared") for each in again["moaa"]["members"]] == [True, True, None]
    assert [message["content"] for message in engines.of("agg")[0]["messages"]] == [
        message["content"] for message in engines.of("agg")[1]["messages"]
    ]


@pytest.mark.parametrize(
    ("mixture", "tenant", "question"),
    [
        (two(Sampling(), Sampling()), "t", "q"),
        (two(), "another key", "q"),
        (two(), "t", "another question"),
        (two(Sampling(seed=1), Sampling(seed=4)), "t", "q"),
    ],
)
async def test_other_questions_keys_and_samplings_are_asked_again(mixture, tenant, question):
    engines, kept = script(), Proposals(10, 60)
    first = two(Sampling(), Sampling()) if mixture.proposers[0].sampling == Sampling() else two()
    await run(engines, first, kept).whole()
    messages = [{"role": "user", "content": question}]
    await run(engines, mixture, kept, tenant, messages=messages).whole()
    assert len(engines.of("m1")) == len(engines.of("m2")) == 2


@pytest.mark.fast_clock
async def test_they_are_forgotten_after_a_while_and_the_oldest_first():
    engines, kept = script(), Proposals(2, 60)
    await run(engines, two(), kept).whole()
    await asyncio.sleep(59)
    await run(engines, two(), kept).whole()
    assert len(engines.of("m1")) == 1
    await asyncio.sleep(2)
    await run(engines, two(), kept).whole()
    assert len(engines.of("m1")) == 2
    await run(engines, two(), kept, messages=[{"role": "user", "content": "x"}]).whole()
    await run(engines, two(), kept).whole()
    assert len(engines.of("m1")) == 4, "two entries are too few for two questions"


async def test_a_failure_is_not_kept():
    engines, kept = script(m1=Says(error=ApiError(500, "x"))), Proposals(10, 60)
    await run(engines, two(), kept).whole()
    engines.models["m1"] = Says()
    assert (await run(engines, two(), kept).whole())["moaa"]["left_out"] == []
    assert len(engines.of("m1")) == 2


@pytest.mark.fast_clock
async def test_equal_calls_in_flight_are_shared_and_end_when_nobody_waits():
    engines = script(m1=Says(("x",), 5, usage=USAGE), m2=Says(("y",), 5, usage=USAGE))
    kept = Proposals(0, 60)
    one = asyncio.create_task(run(engines, two(), kept).whole())
    await asyncio.sleep(1)
    other = asyncio.create_task(run(engines, two(), kept).whole())
    await asyncio.sleep(1)
    one.cancel()  # who asked first leaves: the other goes on with its calls
    body = await other
    assert [len(engines.of(name)) for name in ("m1", "m2")] == [1, 1]
    assert engines.cancelled == []
    assert body["usage"]["total_tokens"] == 12

    last = asyncio.create_task(run(engines, two(), kept).whole())
    await asyncio.sleep(1)
    last.cancel()
    await asyncio.wait([last])
    assert sorted(engines.cancelled) == ["m1", "m2"]


async def test_who_comes_while_a_call_is_ended_asks_again():
    kept, call = Proposals(0, 60), Call("m", (), COLD)
    ending = asyncio.Event()
    asked = 0

    async def ask() -> Answered:
        nonlocal asked
        asked += 1
        if asked == 1:
            try:
                await asyncio.sleep(3600)
            except asyncio.CancelledError:
                ending.set()
                await asyncio.sleep(0.01)  # closing its connection takes a moment
                raise
        return Answered(Reply((Choice("x"),)), None)

    first = asyncio.create_task(kept.get("t", call, ask))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    first.cancel()
    await ending.wait()
    answered, shared = await kept.get("t", call, ask)
    assert (answered.reply.text, shared, asked) == ("x", False, 2)
    assert await asyncio.wait([first])


@pytest.mark.fast_clock
async def test_proposals_are_shown_one_after_the_other_as_reasoning():
    engines = Script(
        m1=Says(("a", "b"), 2, 2, usage=USAGE),
        m2=Says(("c", "d"), 1, 2, usage=USAGE),
        agg=Says(("answer",), usage=USAGE),
    )
    asked = run(engines, two(), stream=True, moaa={"proposals": "reasoning"})
    found = await events(asked)
    reasoning = [
        each["choices"][0]["delta"].get("reasoning")
        for each in found
        if isinstance(each, dict) and each["choices"]
    ]
    assert "".join(filter(None, reasoning)) == "**m2**\n\ncd\n\n**m1**\n\nab\n\n"
    assert text_of(found) == "answer"
    costs = found[-1]["moaa"]
    assert [each["text"] for each in costs["proposals"]] == ["ab", "cd"]
    assert [each["completion_tokens"] for each in costs["members"]] == [2, 2, 2]


@pytest.mark.fast_clock
async def test_proposals_are_shown_side_by_side_with_their_names():
    engines = Script(
        m1=Says(("a", "b"), 2, 2, usage=USAGE),
        m2=Says(("c", "d"), 1, 2, usage=USAGE),
        m3=Says(after_s=99),
        agg=Says(("answer",), usage=USAGE),
    )
    found = await events(run(engines, stream=True, moaa={"proposals": "each"}))
    seen: list[object] = []
    for each in found:
        if isinstance(each, dict) and "member" in each.get("moaa", {}):
            piece = each["choices"][0]["delta"].get("reasoning")
            beside = each["moaa"]
            ended = next((kind for kind in ("done", "left_out") if kind in beside), None)
            seen.append((beside["member"], piece or ended))
    assert seen == [
        ("m2", "c"),
        ("m1", "a"),
        ("m2", "d"),
        ("m1", "b"),
        ("m2", "done"),
        ("m1", "done"),
        ("m3", "left_out"),
    ]
    assert engines.cancelled == ["m3"]


async def test_a_kept_proposal_is_shown_too_and_self_moa_has_numbers():
    seeded = Sampling(n=2, seed=1)
    mixture = served(Member(model="m1", sampling=seeded))
    engines, kept = script(), Proposals(10, 60)
    for _ in range(2):
        found = await events(run(engines, mixture, kept, stream=True, moaa={"proposals": "each"}))
        shown = [each["moaa"]["member"] for each in found if "reasoning" in str(each)]
        assert shown == ["m1#1", "m1#2"]
    assert len(engines.of("m1")) == 1


async def test_a_body_that_is_not_streamed_has_the_proposals_on_request():
    asked = run(script(), two(), moaa={"proposals": "each"})
    costs = (await asked.whole())["moaa"]
    assert [each["text"] for each in costs["proposals"]] == ["of m1", "of m2"]
    assert "proposals" not in (await run(script(), two()).whole())["moaa"]
