"""A server that hangs is found in time; one that lives is never taken for one that hangs.

On a clock that jumps to the next timer: ten minutes pass in a moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from moaa.chat import http
from moaa.chat.client import Client
from moaa.chat.health import LONGEST_WAIT_S, LOOK_AGAIN_S
from moaa.chat.message import Reply
from moaa.chat.pool import Endpoint
from moaa.errors import CallFailed, CallRejected, EngineAway, EngineError
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls
from tests.support.clients import call
from tests.support.engine_server import answer

pytestmark = pytest.mark.fast_clock
TIMEOUT_S = 600.0
Body = dict[str, Any]
Answer = Callable[[Body, int], Awaitable[web.StreamResponse | None]]
"""What a server does with a request and its number; None: answer it."""


def now() -> float:
    return asyncio.get_running_loop().time()


def is_probe(body: Body) -> bool:
    return bool(body["max_tokens"] == 1)


class Bench:
    """A client, and a server in the same loop that does as `behave` says."""

    def __init__(self, client: Client, ledger: Ledger, url: str, bodies: list[Body]) -> None:
        self.client, self.ledger, self.bodies = client, ledger, bodies
        self.pool = client.pool("m")
        self.url = url

    async def ask(self, *words: str) -> list[Reply | BaseException]:
        """The outcome of a call with each of these words, all at the same time."""
        calls = (self.client.send(call(word)) for word in words)
        return await asyncio.gather(*calls, return_exceptions=True)


@asynccontextmanager
async def bench(behave: Answer, *, kept: bool = False, **calls: Any) -> AsyncIterator[Bench]:
    bodies: list[Body] = []

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        bodies.append(body)
        return await behave(body, len(bodies)) or web.json_response(answer(body))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    ledger = Ledger()
    async with (
        TestServer(app) as server,
        Client(Calls(timeout_s=TIMEOUT_S, **calls), ledger) as client,
    ):
        made = Bench(client, ledger, str(server.make_url("/v1")), bodies)
        made.pool.add(Endpoint(made.url, "m", kept=kept))
        yield made
    await asyncio.sleep(1)  # until the server's connections are closed


def words(n: int) -> list[str]:
    return [f"word {number}" for number in range(n)]


async def hang(body: Body, number: int) -> None:
    await asyncio.sleep(1e9)


async def refuse(
    body: Body, status: int, message: str = "as told", after_s: float | None = None
) -> web.StreamResponse:
    return web.json_response(
        {"error": {"message": message, "code": status}},
        status=status,
        headers={} if after_s is None else {"Retry-After": f"{after_s:g}"},
    )


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


async def test_a_retry_after_of_hours_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    until = now() + 7200

    async def used_up(body: Body, number: int) -> web.StreamResponse | None:
        return await refuse(body, 429, "daily quota", until - now()) if now() < until else None

    async with bench(used_up, retries=0) as it:
        outcomes = await it.ask(*words(8))
        assert all(isinstance(each, Reply) for each in outcomes)
        assert until <= now() <= until + LOOK_AGAIN_S
        assert len([body for body in it.bodies if is_probe(body)]) <= 7200 / LOOK_AGAIN_S + 1
    assert caplog.text.count("asks to wait 7200 s") == 1, "people were not told once"


async def test_a_retry_after_that_is_wrong_by_years_costs_minutes() -> None:
    begun = now()

    async def wrong(body: Body, number: int) -> web.StreamResponse | None:
        return await refuse(body, 429, after_s=1e9) if now() < begun + 60 else None

    async with bench(wrong) as it:
        (reply,) = await it.ask("Hello")
        assert isinstance(reply, Reply)
        assert now() - begun <= LOOK_AGAIN_S + 1


async def test_a_server_that_always_asks_to_wait_fails_its_model_after_hours() -> None:
    async def used_up(body: Body, number: int) -> web.StreamResponse:
        return await refuse(body, 429, "daily quota", after_s=7200)

    async with bench(used_up) as it:
        begun = now()
        (error,) = await it.ask("Hello")
        assert isinstance(error, EngineAway), "the runner Job would not begin again"
        assert "daily quota (asks to wait 7200 s)" in str(error)
        assert LONGEST_WAIT_S <= now() - begun <= LONGEST_WAIT_S + 2 * TIMEOUT_S


async def test_a_stage_begins_with_a_server_that_asks_to_wait() -> None:
    async def busy(body: Body, number: int) -> web.StreamResponse | None:
        return await refuse(body, 429, after_s=7200) if now() < 2000 else None

    async with bench(busy) as it:
        (endpoint,) = it.pool.endpoints
        await it.client.answers(endpoint, "m", 60, or_is_busy=True)
        with pytest.raises(EngineError, match="asks to wait 7200 s"):
            await it.client.answers(endpoint, "m", 60)


async def test_a_rate_limit_costs_no_call_its_retries() -> None:
    answered_at: list[float] = []

    async def three_a_minute(body: Body, number: int) -> web.StreamResponse | None:
        if len([at for at in answered_at if at > now() - 60]) >= 3:
            return await refuse(body, 429, "3 requests a minute", after_s=20)
        answered_at.append(now())
        return None

    async with bench(three_a_minute, retries=1, in_flight=16) as it:
        outcomes = await it.ask(*words(40))
        assert all(isinstance(each, Reply) for each in outcomes), "a row was rejected"
        assert it.ledger.events["asked again after: HTTP 429"] > 0


async def test_a_request_that_is_too_large_for_its_rate_limit_is_given_up() -> None:
    async def too_large(body: Body, number: int) -> web.StreamResponse | None:
        return None if is_probe(body) else await refuse(body, 429, "limit 10000, requested 11000")

    async with bench(too_large, retries=1) as it:
        (error,) = await it.ask("Hello")
        assert isinstance(error, CallFailed)
        assert "requested 11000" in str(error)


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


@pytest.mark.parametrize("how", ["garbled", "500"])
async def test_requests_that_always_fail_do_not_slow_the_others(how: str) -> None:
    """Before: the server rested up to 30 s after each of them, and got one call at a time."""
    bad = {word for number, word in enumerate(words(200)) if number % 10 < 3}

    async def some_fail(body: Body, number: int) -> web.StreamResponse | None:
        await asyncio.sleep(1)
        if body["messages"][0]["content"] not in bad:
            return None
        return web.json_response({}) if how == "garbled" else await refuse(body, 500)

    async with bench(some_fail, in_flight=8) as it:
        begun = now()
        outcomes = dict(zip(words(200), await it.ask(*words(200)), strict=True))
        assert now() - begun < 400, "200 answers of 1 s, 8 at once, and 6 retries of the others"
        assert {word for word, each in outcomes.items() if isinstance(each, CallFailed)} == bad
        assert it.ledger.model("m").retries == 6 * len(bad)
        if how == "garbled":
            assert it.ledger.events == {"asked again after: garbled answer": 6 * len(bad)}


async def test_a_server_that_answers_500_to_everything_fails_its_model_not_its_rows() -> None:
    async def broken(body: Body, number: int) -> web.StreamResponse:
        return await refuse(body, 500, "CUDA error")

    async with bench(broken, in_flight=8) as it:
        for error in await it.ask(*words(20)):
            assert isinstance(error, EngineError)
            assert "CUDA error" in str(error)
        assert now() < 1_000 + 2 * TIMEOUT_S


@pytest.mark.parametrize("status", [403, 451])
async def test_a_denial_of_one_prompt_rejects_its_row(status: int) -> None:
    async def moderated(body: Body, number: int) -> web.StreamResponse | None:
        return await refuse(body, status, "flagged") if "word 3" in str(body) else None

    async with bench(moderated) as it:
        outcomes = await it.ask(*words(8))
        (rejected,) = [each for each in outcomes if not isinstance(each, Reply)]
        assert isinstance(rejected, CallRejected)
        assert rejected.reason == f"denied (HTTP {status})"
        assert rejected.detail == "flagged"


async def test_a_denial_of_every_prompt_fails_the_model() -> None:
    async def not_yours(body: Body, number: int) -> web.StreamResponse:
        return await refuse(body, 403, "not yours")

    async with bench(not_yours) as it:
        (error,) = await it.ask("Hello")
        assert isinstance(error, EngineError)
        assert "The key may not use this model" in str(error)


async def test_a_generation_that_failed_is_tried_again() -> None:
    """TGI says 424."""

    async def once(body: Body, number: int) -> web.StreamResponse | None:
        return await refuse(body, 424) if number == 1 else None

    async with bench(once) as it:
        (reply,) = await it.ask("Hello")
        assert isinstance(reply, Reply)


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
