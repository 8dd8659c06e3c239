"""The chat client against a server of ours: what is sent, what comes back, what is refused, and
that keys stay secret."""

from __future__ import annotations

import asyncio
import json
import logging
import time

import pytest
from aiohttp import web

from moaa.errors import CallFailed, CallRejected, EngineError
from moaa.recipe.schema import Sampling
from tests.support.clients import call, client_of, use
from tests.support.engine_server import EngineServer, context_length, reset, slow, status, text
from tests.support.waiting import async_until

KEY = "sk-do-not-show-me"


async def test_an_answer_and_its_usage(server: EngineServer):
    async with client_of(server.url) as client:
        reply = await client.send(call("one two three"))
    assert len(reply.text.split()) == 8
    assert reply.choices[0].finish_reason == "stop"
    assert (reply.prompt_tokens, reply.completion_tokens) == (3, 8)
    counted = use(client)
    assert (counted.calls, counted.retries, counted.failed, counted.truncated) == (1, 0, 0, 0)
    assert (counted.prompt_tokens, counted.completion_tokens) == (3, 8)
    assert 0 < reply.seconds <= counted.seconds < 5


async def test_all_of_the_sampling_is_sent(server: EngineServer):
    sampling = Sampling(temperature=0.3, top_p=0.9, max_tokens=7, n=3, seed=5, stop=("END",))
    async with client_of(server.url) as client:
        reply = await client.send(call("Grüße 🙂", sampling=sampling))
    assert server.requests == [
        {
            "model": "m",
            "messages": [{"role": "user", "content": "Grüße 🙂"}],
            "temperature": 0.3,
            "top_p": 0.9,
            "max_tokens": 7,
            "n": 3,
            "seed": 5,
            "stop": ["END"],
        }
    ]
    assert len(reply.choices) == len({choice.text for choice in reply.choices}) == 3
    assert use(client).truncated == 3


async def test_choices_and_log_probabilities(server: EngineServer):
    async with client_of(server.url) as client:
        reply = await client.send(call(choices=("A", "B"), logprobs=True))
    request = server.requests[0]
    assert request["structured_outputs"] == {"choice": ["A", "B"]}
    assert (request["logprobs"], request["top_logprobs"]) == (True, 20)
    assert reply.text in ("A", "B")
    (position,) = reply.choices[0].tokens
    assert position["the"] == -9999.0
    assert set(position) == {"A", "B", "the"}


async def test_reasoning_in_answers_is_counted_and_said_once(
    server: EngineServer, caplog: pytest.LogCaptureFixture
):
    thinks = {"message": {"content": "<think>Hm.</think>Yes."}, "finish_reason": "stop"}
    server.fail(text(json.dumps({"choices": [thinks, thinks]})), times=2)
    async with client_of(server.url) as client:
        for _ in range(2):
            reply = await client.send(call(sampling=Sampling(n=2)))
            assert [choice.text for choice in reply.choices] == ["Yes.", "Yes."]
        (counted,) = client._ledger.events.items()
    assert counted == ("answers of m with reasoning in their text, which was taken out", 4)
    (said,) = [record.getMessage() for record in caplog.records if record.name == "moaa"]
    assert "--reasoning-parser" in said


async def test_a_cut_thought_that_the_prompt_opened_is_no_answer(server: EngineServer):
    """DeepSeek-R1's template ends with `<think>`: nothing marks where the thought began."""

    def said(content: str, finish: str) -> str:
        return json.dumps({"choices": [{"message": {"content": content}, "finish_reason": finish}]})

    server.fail(
        text(said("Hm.\n</think>\n\nYes.", "stop")),
        text(said("Well.\n</think>\n\nYes.", "stop")),
        text(said("Hm, so if", "length")),
        text(said("Hm.\n</think>\n\nYes, bec", "length")),
        text(said("No.", "stop")),
    )
    async with client_of(server.url) as client:
        found = [(await client.send(call())).choices[0] for _ in range(5)]
    assert [choice.text for choice in found] == ["Yes.", "Yes.", "", "Yes, bec", "No."]
    assert [choice.cut for choice in found] == [False, False, True, True, False]
    (times,) = client._ledger.events.values()
    assert times == 4


@pytest.mark.parametrize(
    ("fault", "reason", "says"),
    [
        (context_length(), "context length", "maximum context length is 4096"),
        (status(400, "max_tokens is too large", param="max_tokens"), "context length", "too large"),
        (status(400, "temperature must be in [0, 2]"), "bad request", "temperature"),
        (status(413, "too large"), "bad request", "too large"),
        (text('{"detail": [{"msg": "Field required"}]}', 422), "bad request", "Field required"),
        (text("", 400), "bad request", "HTTP 400"),
    ],
)
async def test_a_refused_request_rejects_the_call_at_once(
    server: EngineServer, fault, reason: str, says: str
):
    server.fail(fault)
    async with client_of(server.url) as client:
        with pytest.raises(CallRejected, match=says) as rejected:
            await client.send(call())
    assert rejected.value.reason == reason
    assert server.count == 1
    assert use(client).failed == 1


async def moved(request, body):
    return web.Response(status=302, headers={"Location": "/v1/models"})


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        (status(404, "The model `m` does not exist."), "does not exist"),
        (status(401, "bad key"), "key_env"),
        (status(402, "Insufficient Balance"), "no credit left"),
        (status(405, ""), "endpoint.url"),
        (moved, "endpoint.url"),
        (status(429, "You exceeded your current quota", code="insufficient_quota"), "quota"),
    ],
)
async def test_a_model_that_is_not_served_is_an_engine_error_at_once(
    server: EngineServer, fault, says: str
):
    server.fail(fault)
    async with client_of(server.url) as client:
        with pytest.raises(EngineError, match=says) as failed:
            await client.send(call())
    assert "'m'" in str(failed.value)
    assert server.count == 1


async def test_a_server_that_ignores_n_is_told_so(server: EngineServer):
    server.fail(text('{"choices": [{"message": {"content": "one"}, "finish_reason": "stop"}]}'))
    async with client_of(server.url) as client:
        with pytest.raises(CallRejected, match="ignores `n`"):
            await client.send(call(sampling=Sampling(n=5)))


async def test_half_an_emoji_becomes_text_that_can_be_stored(server: EngineServer):
    server.fail(
        text('{"choices": [{"message": {"content": "cut \\ud83d"}, "finish_reason": "length"}]}')
    )
    async with client_of(server.url) as client:
        reply = await client.send(call())
    assert reply.text.encode().startswith(b"cut ")
    assert use(client).truncated == 1


async def test_the_key_is_sent_and_never_shown(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with EngineServer("m", key=KEY) as server:
        async with client_of(server.url, key=KEY + "\n") as client:
            assert (await client.send(call())).text
            server.fail(text(f"garbled {KEY}"), times=3)
            with pytest.raises(CallFailed) as garbled:
                await client.send(call())
            server.answers_probes = True
            server.key = "another"  # this server repeats the wrong key in its error
            with pytest.raises(EngineError) as failed:
                await client.send(call())
            server.fail(text(f"your key {KEY} is busy", 500), times=3)
            with pytest.raises(CallFailed) as busy:
                await client.send(call())
    for seen in (
        str(garbled.value),
        str(failed.value),
        str(busy.value),
        caplog.text,
        repr(client.pool("m").endpoints),
    ):
        assert KEY not in seen
    assert "***" in str(failed.value)


@pytest.mark.parametrize("key", ["none", "EMPTY", "content", "choices", "x", "\n"])
async def test_a_key_that_is_a_word_of_an_answer_changes_no_answer(server: EngineServer, key: str):
    said = f"none, EMPTY, content, choices, x, {key}: \N{SNOWMAN}"
    choice = {"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
    server.fail(text(json.dumps({"choices": [choice]})))
    async with client_of(server.url, key=key) as client:
        assert (await client.send(call())).text == said


@pytest.mark.parametrize("key", [f"{KEY}\nsk-another", f"{KEY}\r\nX: y", f"{KEY}\0", f"{KEY}ü"])
async def test_a_key_that_fits_no_header_is_said_and_not_shown(server: EngineServer, key: str):
    async with client_of(server.url, key=key) as client:
        with pytest.raises(EngineError, match=r"API key .* cannot be sent") as failed:
            await client.send(call())
    assert KEY not in str(failed.value)
    assert server.requests == []


async def test_what_a_server_says_is_shown_in_one_short_line(server: EngineServer):
    server.answers_probes = True
    server.fail(text("line\n" * 10_000, 500), times=3)
    async with client_of(server.url) as client:
        with pytest.raises(CallFailed) as failed:
            await client.send(call())
    assert len(str(failed.value)) < 500
    assert "\n" not in str(failed.value)


async def test_the_endpoint_bounds_what_is_in_flight(server: EngineServer):
    server.delay_s = 0.02
    async with client_of(server.url, in_flight=4) as client:
        await asyncio.gather(*(client.send(call(str(i))) for i in range(20)))
    assert server.at_once == 4


async def test_two_servers_share_the_calls():
    with EngineServer("m", delay_s=0.02) as one, EngineServer("m", delay_s=0.02) as two:
        async with client_of(one.url, two.url) as client:
            await asyncio.gather(*(client.send(call(str(i))) for i in range(20)))
    assert (one.count, two.count) == (10, 10)


async def test_cancelling_a_call_gives_its_place_back(server: EngineServer):
    server.fail(slow(3600))
    async with client_of(server.url, in_flight=1) as client:
        hanging = asyncio.create_task(client.send(call("hang")))
        await async_until(lambda: server.count)
        hanging.cancel()
        assert (await asyncio.wait_for(client.send(call()), 2)).text


async def test_ready_waits_for_a_real_answer(server: EngineServer):
    server.fail(status(503), text(""), reset())
    async with client_of(server.url) as client:
        await client.ready("m", 5)
    assert server.count == 4
    assert server.requests[-1]["max_tokens"] == 1
    assert use(client).calls == 0, "a probe is no call of the method"


async def test_ready_says_what_the_server_said(server: EngineServer):
    server.fail(status(503, "still loading weights"), times=10_000)
    async with client_of(server.url) as client:
        with pytest.raises(EngineError, match="still loading weights"):
            await client.ready("m", 2)


async def test_ready_does_not_wait_for_a_wrong_key():
    with EngineServer("m", key=KEY) as server:
        async with client_of(server.url) as client:
            start = time.monotonic()
            with pytest.raises(EngineError, match="401"):
                await client.ready("m", 60)
            assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8000/v1",
        "ftp://host/v1",
        "http://",
        "http://[bad/v1",
        "http://host..svc/v1",
        f"http://{'a' * 64}.svc/v1",
    ],
)
async def test_an_address_that_is_none(url: str):
    async with client_of(url) as client:
        with pytest.raises(EngineError, match=r"endpoint\.url"):
            await client.send(call())
