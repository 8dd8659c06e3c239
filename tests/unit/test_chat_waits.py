"""Servers that ask to wait, refuse, or fail: what is waited for, and what is given up."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import web

from moaa.chat.health import LONGEST_WAIT_S, LOOK_AGAIN_S
from moaa.chat.message import Reply
from moaa.errors import CallFailed, CallRejected, EngineAway, EngineError
from tests.support.chat_bench import (
    TIMEOUT_S,
    Body,
    bench,
    is_probe,
    now,
    refuse,
    words,
)

pytestmark = pytest.mark.fast_clock


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
