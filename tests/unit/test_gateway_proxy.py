"""Requests to plain models go on byte for byte, and their answers come back so."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator

import pytest

from moaa.gateway import state
from tests.support.clients import free_port
from tests.support.engine_server import reset, status, text
from tests.support.gateways import ask, gateway_of, of
from tests.support.streaming_engine import StreamingEngine
from tests.support.waiting import async_until

ODD = (
    b'{ "model" : "m", "x_unknown":[1.50, 1e3,"\\u00e9\xc3\xa9"],"max_tokens":8,\n "messages": []}'
)


@pytest.fixture
def engine() -> Iterator[StreamingEngine]:
    with StreamingEngine("m", "real") as running:
        yield running


@pytest.fixture
def other() -> Iterator[StreamingEngine]:
    with StreamingEngine("m", "real") as running:
        yield running


async def test_the_body_goes_on_byte_for_byte(engine: StreamingEngine) -> None:
    async with gateway_of(of(engine)) as running, running.post("/chat/completions", ODD) as answer:
        assert answer.status == 200
    assert engine.raw == [ODD]


async def test_only_the_name_is_replaced_where_the_server_has_another(
    engine: StreamingEngine,
) -> None:
    async with (
        gateway_of(of(engine, served_name="real")) as running,
        running.post("/chat/completions", ODD) as answer,
    ):
        assert answer.status == 200
    assert engine.raw == [ODD.replace(b'"m"', b'"real"')]


async def test_a_stream_comes_back_byte_for_byte(engine: StreamingEngine) -> None:
    body = ask(stream=True, stream_options={"include_usage": True})
    async with gateway_of(of(engine)) as running:
        async with running.post("/chat/completions", body) as answer:
            ours = await answer.read()
        async with running.http.post(engine.url + "/chat/completions", json=body) as answer:
            direct = await answer.read()
        assert ours == direct
        assert ours.endswith(b"data: [DONE]\n\n")
        assert running.gateway.metrics.tokens.value("m", "m", "completion") == 8
        assert running.gateway.metrics.first_token.count("m", "") == 1


async def test_tokens_of_a_stream_are_counted_and_taken_out_where_that_is_asked(
    engine: StreamingEngine,
) -> None:
    async with gateway_of(of(engine, count_tokens=True)) as running:
        async with running.post("/chat/completions", ask(stream=True)) as answer:
            events = (await answer.read()).split(b"\n\n")
        assert running.gateway.metrics.tokens.value("m", "m", "prompt") == 5
    assert json.loads(engine.raw[0])["stream_options"] == {"include_usage": True}
    assert not any(b"usage" in event for event in events)
    assert len(events) == 8 + 2  # [DONE], and what follows its end
    assert events[-2] == b"data: [DONE]"


async def test_a_stream_that_tells_no_tokens_is_counted_as_such(engine: StreamingEngine) -> None:
    async with gateway_of(of(engine)) as running:
        async with running.post("/chat/completions", ask(stream=True)) as answer:
            await answer.read()
        assert running.gateway.metrics.uncounted.value("m") == 1


async def test_the_engine_gets_its_own_key_and_never_the_client_s(
    engine: StreamingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENGINE_KEY", "engine-key\n")
    headers = {"Authorization": "Bearer client-key", "Cookie": "a=b", "x-request-id": "mine-1"}
    async with (
        gateway_of(of(engine, key_env="ENGINE_KEY")) as running,
        running.post("/chat/completions", ask(), headers=headers) as answer,
    ):
        assert answer.headers["x-request-id"] == "mine-1"
    (seen,) = engine.seen
    assert seen["authorization"] == "Bearer engine-key"
    assert seen["x-request-id"] == "mine-1"
    assert "cookie" not in seen


@pytest.mark.parametrize("given", ["a b", "x" * 200, "<script>", ""])
async def test_an_odd_request_id_gets_another_one(engine: StreamingEngine, given: str) -> None:
    async with (
        gateway_of(of(engine)) as running,
        running.post("/chat/completions", ask(), headers={"x-request-id": given}) as answer,
    ):
        assert answer.headers["x-request-id"].startswith("req_")


async def test_a_dead_replica_is_left_out_before_the_first_byte(engine: StreamingEngine) -> None:
    dead = f"http://127.0.0.1:{free_port()}/v1"
    config = {"models": {"m": {"endpoints": [dead, engine.url]}}}
    async with gateway_of(config) as running:
        for _ in range(4):
            async with running.post("/chat/completions", ask()) as answer:
                assert answer.status == 200
        assert running.gateway.metrics.retries.value("m", "model_not_up") == 1
        replica = running.gateway.backends["m"].replicas[dead]
        assert replica.endpoint.in_doubt


@pytest.mark.parametrize("fault", [reset(), status(500), status(503), status(429)])
async def test_another_replica_is_asked_after_a_fault_that_may_pass(
    engine: StreamingEngine, other: StreamingEngine, fault
) -> None:
    engine.fail(fault)
    engine.answers_probes = True
    async with gateway_of(of(engine, other)) as running:
        for _ in range(2):  # each of them is the first one once
            async with running.post("/chat/completions", ask()) as answer:
                assert answer.status == 200
    assert engine.count + other.count == 3


async def test_a_request_breaks_two_engines_at_most(
    engine: StreamingEngine, other: StreamingEngine
) -> None:
    with StreamingEngine("m") as third:
        for each in (engine, other, third):
            each.answers_probes = True
            each.fail(status(500, "CUDA error"), times=9)
        async with (
            gateway_of(of(engine, other, third)) as running,
            running.post("/chat/completions", ask()) as answer,
        ):
            assert answer.status == 500
            assert (await answer.json())["error"]["message"] == "CUDA error"
        assert engine.count + other.count + third.count == 2


async def test_an_old_connection_that_the_only_server_closed_is_no_failure(
    engine: StreamingEngine,
) -> None:
    engine.fail(reset())
    async with (
        gateway_of(of(engine)) as running,
        running.post("/chat/completions", ask()) as answer,
    ):
        assert answer.status == 200


async def test_nothing_up_is_503_and_full_is_429(engine: StreamingEngine) -> None:
    dead = {"models": {"m": {"endpoints": [f"http://127.0.0.1:{free_port()}/v1"]}}}
    async with gateway_of(dead) as running, running.post("/chat/completions", ask()) as answer:
        assert answer.status == 503
        assert (await answer.json())["error"]["code"] == "model_not_up"
        assert answer.headers["x-should-retry"] == "true"
        assert 0 < int(answer.headers["Retry-After"]) <= 120
    engine.silent_s = 60
    async with gateway_of(of(engine, in_flight=1)) as running:
        first = asyncio.create_task(running.post("/chat/completions", ask()).__aenter__())
        await async_until(lambda: engine.raw, "the first request")
        async with running.post("/chat/completions", ask()) as answer:
            assert answer.status == 429
            assert (await answer.json())["error"]["code"] == "engine_overloaded"
        first.cancel()


@pytest.mark.parametrize("half", [False, True])
async def test_an_engine_that_dies_in_mid_stream_ends_it_with_an_error(
    engine: StreamingEngine, half: bool
) -> None:
    engine.breaks_after, engine.half_an_event, engine.answers_probes = 3, half, True
    async with gateway_of(of(engine)) as running:
        async with running.post("/chat/completions", ask(stream=True)) as answer:
            assert answer.status == 200
            events = (await answer.read()).decode().split("\n\n")
        assert running.gateway.metrics.broken.value("m") == 1
    parsed = [json.loads(event.removeprefix("data: ")) for event in events[:-2]]
    assert ["choices" in each for each in parsed] == [True] * 3 + [False]
    assert parsed[-1]["error"]["code"] == "stream_broken"
    assert events[-2:] == ["data: [DONE]", ""]


@pytest.mark.parametrize("whole", [False, True])
async def test_a_stream_without_its_end_gets_one(engine: StreamingEngine, whole: bool) -> None:
    """It is an error unless the answer is whole."""
    engine.ends_without_done, engine.finishes, engine.answers_probes = True, whole, True
    async with (
        gateway_of(of(engine)) as running,
        running.post("/chat/completions", ask(stream=True)) as answer,
    ):
        said = await answer.read()
        assert said.endswith(b"data: [DONE]\n\n")
        assert (b"stream_broken" in said) != whole
        assert running.gateway.metrics.broken.value("m") == (not whole)


async def test_a_long_answer_is_passed_back_while_it_comes(engine: StreamingEngine) -> None:
    engine.say = lambda body: "x" * (6 << 20)
    async with gateway_of(of(engine)) as running:
        async with running.post("/chat/completions", ask()) as answer:
            assert len((await answer.json())["choices"][0]["message"]["content"]) == 6 << 20
        assert running.gateway.metrics.tokens.value("m", "m", "completion") == 8


async def test_streams_of_responses_end_without_done(engine: StreamingEngine) -> None:
    body = {"model": "m", "input": "hi", "stream": True}
    async with gateway_of(of(engine)) as running:
        async with running.post("/responses", body) as answer:
            assert b"[DONE]" not in await answer.read()
        assert running.gateway.metrics.broken.value("m") == 0


async def test_what_is_no_json_goes_back_as_it_is(engine: StreamingEngine) -> None:
    engine.fail(text("plain words"))
    async with (
        gateway_of(of(engine)) as running,
        running.post("/chat/completions", ask()) as answer,
    ):
        assert await answer.text() == "plain words"


async def test_an_engine_that_says_nothing_is_given_up(engine: StreamingEngine) -> None:
    engine.silent_s, engine.answers_probes = 60, True
    config = {**of(engine), "times": {"idle_s": 0.05}}
    async with gateway_of(config) as running:
        for streamed in (False, True):
            async with running.post("/chat/completions", ask(stream=streamed)) as answer:
                assert answer.status == 504
                assert (await answer.json())["error"]["code"] == "timeout"
                assert answer.headers["x-should-retry"] == "false"
        engine.silent_s, engine.every_s = 0, 60
        async with running.post("/chat/completions", ask(stream=True)) as answer:
            assert answer.status == 504  # headers alone are no first byte


async def test_a_stream_that_stands_still_ends_with_an_error(engine: StreamingEngine) -> None:
    engine.every_s, engine.stands_at, engine.answers_probes = 0.001, 3, True
    config = {**of(engine), "times": {"idle_s": 0.1}}
    async with (
        gateway_of(config) as running,
        running.post("/chat/completions", ask(stream=True)) as answer,
    ):
        events = (await answer.read()).decode().split("\n\n")
    assert "stream_broken" in events[-3]
    await async_until(lambda: engine.left, "the engine's request")


async def test_a_client_that_does_not_read_is_cut_off(
    engine: StreamingEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "LOOK_EVERY_S", 0.02)
    engine.words, engine.pads = 2_000, 10_000
    config = {**of(engine), "times": {"idle_s": 0.2}}
    async with gateway_of(config) as running:
        task = asyncio.create_task(running.gateway._look_after())
        async with running.post("/chat/completions", ask(stream=True)):
            await async_until(lambda: engine.left, "the engine's request")
        assert running.gateway.metrics.cancelled.value("m") == 1
        task.cancel()
