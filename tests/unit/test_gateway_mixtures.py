"""One request to a mixture that is served: what it waits for, streams, counts and cancels."""

import asyncio

import pytest

from moaa.gateway.mixtures.members import Traits
from moaa.gateway.mixtures.settings import Online
from moaa.gateway.wire import ApiError
from moaa.recipe.serving import Price
from tests.support.mixing import Says, events, full, run, served, text_of

LEFT = [(1.5, ["m2", "m3"]), (3.2, ["agg"]), (3.7, ["agg"])]
"""When a client leaves, and whose work is ended then."""

SUM = {
    "prompt_tokens": 160,
    "completion_tokens": 22,
    "total_tokens": 182,
    "completion_tokens_details": {"reasoning_tokens": 17},
    "prompt_tokens_details": {"cached_tokens": 67},
}


@pytest.mark.fast_clock
async def test_usage_is_the_sum_of_all_members_streamed_as_well_as_whole():
    body = await run(full()).whole()
    assert body["usage"] == SUM
    assert body["choices"][0]["message"]["content"] == "the answer"
    assert (body["object"], body["model"]) == ("chat.completion", "mix")

    found = await events(run(full(), stream=True, stream_options={"include_usage": True}))
    assert text_of(found) == "the answer"
    last = found[-1]
    assert (last["choices"], last["usage"]) == ([], SUM)
    assert all("usage" not in each for each in found[:-1] if isinstance(each, dict))
    for costs in (body["moaa"], last["moaa"]):
        assert [(m["name"], m["role"], m["completion_tokens"]) for m in costs["members"]] == [
            ("m1", "proposer", 4),
            ("m2", "proposer", 5),
            ("m3", "proposer", 6),
            ("agg", "aggregator", 7),
        ]
        assert [m["seconds"] for m in costs["members"]] == [1, 2, 2.5, 2]
        assert (costs["left_out"], costs["revision"]) == ([], "r1")


@pytest.mark.fast_clock
async def test_without_include_usage_the_last_chunk_has_a_choice_and_the_members():
    found = await events(run(full(), stream=True))
    assert found[-1]["choices"][0]["finish_reason"] == "stop"
    assert [each["name"] for each in found[-1]["moaa"]["members"]] == ["m1", "m2", "m3", "agg"]
    assert not any("usage" in each for each in found if isinstance(each, dict))
    assert len({each["id"] for each in found if isinstance(each, dict)}) == 1
    assert {each["model"] for each in found if isinstance(each, dict)} == {"mix"}


@pytest.mark.fast_clock
async def test_tokens_that_no_server_told_are_not_invented():
    script = full(m1=Says(("one",)), m3=Says(("three",), 99))
    body = await run(script).whole()
    assert body["usage"]["prompt_tokens"] == 120
    first = body["moaa"]["members"][0]
    assert (first["name"], first["prompt_tokens"]) == ("m1", None)
    assert body["moaa"]["left_out"] == [{"name": "m3", "layer": 0, "reason": "late"}]
    assert script.cancelled == ["m3"]


@pytest.mark.fast_clock
async def test_dollars_are_told_where_all_prices_are_known():
    prices = {name: Traits(price=Price(prompt=1, completion=10)) for name in ("m1", "m2", "m3")}
    costs = (await run(full(), traits=prices).whole())["moaa"]
    assert [m.get("usd") for m in costs["members"]] == [50e-6, 70e-6, 90e-6, None]
    assert "usd" not in costs
    costs = (await run(full(), traits=prices | {"agg": prices["m1"]}).whole())["moaa"]
    assert costs["usd"] == pytest.approx(380e-6)


@pytest.mark.fast_clock
async def test_headers_go_out_at_the_quorum_and_the_answer_is_really_streamed():
    loop = asyncio.get_running_loop()
    at: dict[bytes, float] = {}
    start = loop.time()
    async for part in run(full(), stream=True).streamed():
        at.setdefault(part.split(b'"content":')[-1][:12] if part else b"open", loop.time() - start)
    assert at[b"open"] == 2
    assert at[b'"the"},"fini'] == 3.5
    assert at[b'" answer"},"'] == 4.0


@pytest.mark.fast_clock
async def test_comments_keep_a_slow_one_alive_from_ten_seconds_on():
    slow = full(m2=Says(after_s=25), m3=Says(after_s=26), agg=Says(after_s=15, gap_s=12))
    loop, at = asyncio.get_running_loop(), []
    start = loop.time()
    async for part in run(slow, stream=True).streamed():
        if part.startswith(b":"):
            at.append((loop.time() - start, part.decode().strip(": \n")))
    assert at == [
        (10, "1 of 3 proposers have answered"),
        (20, "1 of 3 proposers have answered"),
        (36, "writing the answer"),
        (51, "writing the answer"),
        (63, "writing the answer"),
    ]


@pytest.mark.fast_clock
@pytest.mark.parametrize("stream", [True, False])
async def test_without_a_quorum_at_the_deadline_it_is_504(stream):
    script = full(m2=Says(after_s=99), m3=Says(after_s=99))
    asked = run(script, served(online=Online(deadline_s=7)), stream=stream)
    if stream:
        *_, error = await events(asked)
    else:
        with pytest.raises(ApiError) as raised:
            await asked.whole()
        error = raised.value
    assert (error.status, error.code, error.may_retry) == (504, "quorum", False)
    assert "1 of 3 proposals, 2 needed; left out: m2 (late), m3 (late)" in error.message
    assert not script.of("agg")
    assert script.cancelled == ["m2", "m3"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ApiError(503, "", "model_not_up"), (503, "quorum", True)),
        (ApiError(429, "", "engine_overloaded"), (429, "engine_overloaded", True)),
        (ApiError(400, "", "context_length_exceeded"), (400, "context_length_exceeded", False)),
        (ApiError(500, "broken"), (502, "quorum", False)),
    ],
)
async def test_what_fails_fast_keeps_a_proper_status(error, expected):
    script = full(**{name: Says(error=error) for name in ("m1", "m2", "m3")})
    (found,) = await events(run(script, stream=True))
    assert (found.status, found.code, found.may_retry) == expected


@pytest.mark.fast_clock
async def test_one_proposal_is_no_mixture_unless_the_quorum_says_so():
    broken = ApiError(500, "x")
    script = full(m2=Says(error=broken), m3=Says(error=broken))
    (error,) = await events(run(script, stream=True))
    assert (error.status, error.code) == (502, "quorum")
    body = await run(script, served(online=Online(quorum=1))).whole()
    assert [each["reason"] for each in body["moaa"]["left_out"]] == ["HTTP 500", "HTTP 500"]


@pytest.mark.fast_clock
async def test_another_member_aggregates_if_the_aggregator_fails_before_its_first_token():
    script = full(agg=Says(error=ApiError(503, "x", "model_not_up")))
    body = await run(script).whole()
    assert body["choices"][0]["message"]["content"] == "one"
    assert body["moaa"]["left_out"] == [{"name": "agg", "layer": 1, "reason": "model_not_up"}]
    assert [m["name"] for m in body["moaa"]["members"]][-1] == "m1"
    assert [m["role"] for m in body["moaa"]["members"]][-1] == "aggregator"
    aggregator, fallback = script.of("agg")[0], script.of("m1")[-1]
    assert fallback == aggregator, "the fallback gets the very same question"

    named = served(online=Online(fallback=("m3", "m2")))
    assert text_of(await events(run(script, named, stream=True))) == "three"
    script.models["m3"] = Says(error=ApiError(500, "x"))
    assert text_of(await events(run(script, named, stream=True))) == "two", "m3 did not answer"
    *_, error = await events(run(script, served(online=Online(fallback=())), stream=True))
    assert (error.status, error.code) == (503, "model_not_up")


@pytest.mark.fast_clock
async def test_a_hanging_aggregator_is_given_up_while_there_is_a_fallback():
    script = full(agg=Says(after_s=3600))
    body = await run(script).whole()
    assert body["moaa"]["left_out"] == [{"name": "agg", "layer": 1, "reason": "timeout"}]
    assert script.cancelled == ["agg"]
    slow = full(agg=Says(("late",), after_s=3600))
    assert text_of(await events(run(slow, served(online=Online(fallback=()))))) == "late"


@pytest.mark.fast_clock
async def test_after_the_first_token_an_error_ends_the_stream():
    script = full(agg=Says(("half",), late_error=ApiError(502, "x", "stream_broken")))
    found = await events(run(script, stream=True))
    assert text_of(found) == "half"
    assert found[-1].code == "stream_broken"
    assert not [fields for fields in script.of("m1") if fields.get("stream")]
    with pytest.raises(ApiError, match="stream_broken"):
        await run(script).whole()


async def test_a_refused_request_is_not_tried_with_another_model():
    refused = ApiError(400, "bad schema", "invalid_value", "response_format")
    script = full(agg=Says(error=refused), m1=Says(), m2=Says(), m3=Says())
    with pytest.raises(ApiError) as raised:
        await run(script).whole()
    assert raised.value is refused


@pytest.mark.fast_clock
@pytest.mark.parametrize(
    ("after_s", "cancelled"), [(1.5, ["m2", "m3"]), (3.2, ["agg"]), (3.7, ["agg"])]
)
@pytest.mark.parametrize("stream", [True, False])
async def test_who_leaves_ends_the_work_of_all_members_and_of_the_aggregator(
    after_s, cancelled, stream
):
    asked = run(script := full(), stream=stream)
    task = asyncio.create_task(events(asked) if stream else asked.whole())
    await asyncio.sleep(after_s)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert script.cancelled == cancelled
