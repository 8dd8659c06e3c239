"""Servers that answer nothing, or too late: found in time, and no call waits for ever."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from moaa.chat import http
from moaa.chat.client import Client
from moaa.chat.message import Reply
from moaa.chat.pool import Endpoint
from moaa.errors import CallFailed, EngineError
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls
from tests.support.chat_bench import (
    TIMEOUT_S,
    Body,
    bench,
    is_probe,
    now,
    refuse,
    words,
)
from tests.support.clients import call

pytestmark = pytest.mark.fast_clock


async def hang(body: Body, number: int) -> None:
    await asyncio.sleep(1e9)


@pytest.mark.parametrize("retries", [0, 6])
@pytest.mark.parametrize("in_flight", [1, 8, 64])
async def test_a_server_that_never_answers_fails_its_model_within_two_timeouts(
    in_flight: int, retries: int
) -> None:
    async with bench(hang, in_flight=in_flight, retries=retries) as it:
        begun = now()
        outcomes = await it.ask(*words(3 * in_flight))
        assert now() - begun < 2 * TIMEOUT_S
        assert len(it.bodies) == in_flight + 1, "more than one request of one token was needed"
        for error in outcomes:
            assert isinstance(error, EngineError), "a row was rejected for a server that hangs"
            assert "not even a request for one token, for 1140 s: it hangs" in str(error)
            assert it.url in str(error)


@pytest.mark.parametrize("how", ["only headers", "a byte now and then", "closes", "429 for ever"])
async def test_a_server_that_gives_something_but_no_answer_fails_its_model_too(how: str) -> None:
    async def chat(request: web.Request) -> web.StreamResponse:
        if how == "429 for ever":
            return web.json_response({}, status=429, headers={"Retry-After": "30"})
        assert request.transport is not None
        if how == "closes":
            request.transport.close()
            return web.Response()
        response = web.StreamResponse()
        await response.prepare(request)
        while how == "a byte now and then":
            await asyncio.sleep(10)
            await response.write(b" ")
        await asyncio.sleep(1e9)
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    async with TestServer(app) as server, Client(Calls(timeout_s=TIMEOUT_S), Ledger()) as client:
        client.pool("m").add(Endpoint(str(server.make_url("/v1")), "m"))
        begun = now()
        calls = (client.send(call(word)) for word in words(8))
        for error in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(error, EngineError)
        assert now() - begun < 2 * TIMEOUT_S
    await asyncio.sleep(1)


async def test_a_bug_in_a_check_does_not_leave_calls_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def broken(body: Body, number: int) -> web.StreamResponse:
        return await refuse(body, 500)

    async with bench(broken) as it:

        async def bug(endpoint: Endpoint, model: str, timeout_s: float) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(it.client._health, "_probe", bug)
        (error,) = await it.ask("Hello")
        assert isinstance(error, EngineError)
        assert "ZeroDivisionError" in str(error)


async def test_a_server_that_stops_answering_is_found_from_its_last_answer_on() -> None:
    async def stop_after_five(body: Body, number: int) -> None:
        await (asyncio.sleep(400) if number <= 5 else hang(body, number))

    async with bench(stop_after_five, in_flight=8) as it:
        begun = now()
        outcomes = await it.ask(*words(20))
        assert sum(isinstance(each, Reply) for each in outcomes) == 5
        assert now() - (begun + 400) < 2 * TIMEOUT_S


async def test_a_server_that_takes_longer_than_the_timeout_is_slow_and_does_not_hang() -> None:
    async def slow(body: Body, number: int) -> None:
        await asyncio.sleep(1 if is_probe(body) else TIMEOUT_S + 100)

    async with bench(slow, retries=2) as it:
        outcomes = await it.ask(*words(8))
        for error in outcomes:
            assert isinstance(error, CallFailed)
            assert error.reason == "time-out"
        (endpoint,) = it.pool.endpoints
        assert not endpoint.lost.is_set()
        assert it.ledger.model("m").retries == 2 * 8


async def test_a_first_answer_that_takes_long_is_awaited() -> None:
    async def warm_up(body: Body, number: int) -> None:
        await asyncio.sleep(TIMEOUT_S - 1 if number <= 8 else 1)

    async with bench(warm_up, in_flight=8, retries=0) as it:
        assert all(isinstance(each, Reply) for each in await it.ask(*words(16)))


async def test_a_paused_engine_that_comes_back_is_not_given_up(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A laptop that slept, an engine that loads other weights: all its requests wait."""
    resumed = now() + 1.8 * TIMEOUT_S

    async def paused(body: Body, number: int) -> None:
        await asyncio.sleep(max(0.0, resumed - now()))

    async with bench(paused, in_flight=8, retries=1) as it:
        assert all(isinstance(each, Reply) for each in await it.ask(*words(20)))
        assert now() == pytest.approx(resumed, abs=60)
    told = [record.getMessage() for record in caplog.records if record.name == "moaa"]
    assert "does not answer (time-out" in told[0]
    assert "within 540 s it is given up" in told[0]
    assert told[1:] == [f"model 'm': {it.url} answers again"]


async def test_one_request_that_never_ends_does_not_stop_the_others() -> None:
    """A long prefill: the tokens of the others go on."""

    async def one_is_long(body: Body, number: int) -> None:
        await asyncio.sleep(1e9 if "word 0" in str(body) else 100)

    async with bench(one_is_long, in_flight=4, retries=1) as it:
        first, *others = await it.ask(*words(40))
        assert isinstance(first, CallFailed)
        assert all(isinstance(each, Reply) for each in others)
        assert now() < 1_000 + 4 * TIMEOUT_S, "the others waited for it"


async def test_a_kept_engine_that_hangs_costs_its_calls_no_retry() -> None:
    hung = True

    async def hangs(body: Body, number: int) -> None:
        if hung:
            await hang(body, number)

    async with bench(hangs, kept=True, in_flight=8, retries=0) as it:
        (endpoint,) = it.pool.endpoints
        begun = now()
        asking = asyncio.create_task(it.ask(*words(20)))
        await endpoint.lost.wait()
        assert now() - begun < 2 * TIMEOUT_S
        assert "it hangs" in endpoint.why_lost
        hung = False  # as its keeper does: gone, started again, back
        it.pool.remove(endpoint)
        await asyncio.sleep(100)
        it.pool.add(Endpoint(it.url, "m", kept=True))
        assert all(isinstance(each, Reply) for each in await asking)
        assert it.ledger.model("m").failed == 0


async def test_an_answer_without_end_is_not_read_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http, "LONGEST_ANSWER", 1 << 20)
    written = 0

    async def chat(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while written < 64 << 20:
            await response.write(b" " * (1 << 16))
            written += 1 << 16
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    async with TestServer(app) as server, Client(Calls(retries=0), Ledger()) as client:
        client.pool("m").add(Endpoint(str(server.make_url("/v1")), "m"))
        with pytest.raises(CallFailed, match="longer than 1 MiB"):
            await client.send(call())
    assert written < 32 << 20


async def test_a_cancelled_client_leaves_no_check_behind() -> None:
    async with bench(hang, in_flight=1) as it:
        asking = asyncio.create_task(it.ask("Hello"))
        await asyncio.sleep(TIMEOUT_S + 1)
        assert it.pool.endpoints[0].in_doubt
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert [task for task in asyncio.all_tasks() if "check of" in task.get_name()] == []
