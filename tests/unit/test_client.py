"""Every fault that a server can have, against a real server of ours: what heals is retried, what does not fails at once."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import asynccontextmanager
from email.utils import formatdate

import pytest
from aiohttp import web

from moaa.chat import client as module
from moaa.chat import pool as pools
from moaa.chat.client import Client
from moaa.chat.message import Call
from moaa.chat.pool import Endpoint
from moaa.errors import CallFailed, CallRejected, EngineError
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls, Sampling
from tests.support.engine_server import EngineServer, context_length, reset, slow, status, text

KEY = "sk-do-not-show-me"


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BACKOFF_S", 0.01)
    monkeypatch.setattr(module, "PROBE_EVERY_S", 0.01)
    monkeypatch.setattr(pools, "REST_S", 0.01)


@pytest.fixture
def longest_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """Always 0.2 s: time for a test to take the endpoint away before the call looks."""
    monkeypatch.setattr(module, "BACKOFF_S", 0.2)
    monkeypatch.setattr(module, "MAX_BACKOFF_S", 0.2)
    monkeypatch.setattr(module.random, "uniform", lambda low, high: high)


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with EngineServer("m") as running:
        yield running


@asynccontextmanager
async def client_of(*urls: str, key: str | None = None, **calls):
    async with Client(Calls(**{"retries": 2, "timeout_s": 5, **calls}), Ledger()) as client:
        for url in urls:
            client.pool("m").add(Endpoint(url, "m", key))
        yield client


def call(word: str = "Hello", **fields) -> Call:
    sampling = fields.pop("sampling", Sampling(max_tokens=16))
    return Call("m", ({"role": "user", "content": word},), sampling, **fields)


def use(client: Client):
    return client._ledger.model("m")


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
        {"model": "m", "messages": [{"role": "user", "content": "Grüße 🙂"}], "temperature": 0.3, "top_p": 0.9,
         "max_tokens": 7, "n": 3, "seed": 5, "stop": ["END"]}
    ]  # fmt: skip
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


HEALS = {
    "500": (status(500), "HTTP 500"),
    "503 as HTML": (text("<html>Bad gateway</html>", 503), "HTTP 503"),
    "429": (status(429, retry_after=0.01), "HTTP 429"),
    "408": (status(408), "HTTP 408"),
    "reset": (reset(), "connection"),
    "empty body": (text(""), "garbled answer"),
    "garbled JSON": (text('{"choices": [{"mess'), "garbled answer"),
    "JSON of another kind": (text("[1, 2]"), "garbled answer"),
    "no choices": (text('{"choices": []}'), "garbled answer"),
}


@pytest.mark.parametrize("name", HEALS)
async def test_what_can_heal_is_asked_again(server: EngineServer, name: str):
    server.fail(HEALS[name][0], times=2)
    async with client_of(server.url) as client:
        reply = await client.send(call())
    assert reply.text
    assert server.count == 3
    assert (use(client).calls, use(client).retries, use(client).failed) == (1, 2, 0)


@pytest.mark.parametrize("name", HEALS)
async def test_what_does_not_heal_in_time_fails_the_call(server: EngineServer, name: str):
    server.fail(HEALS[name][0], times=3)
    async with client_of(server.url) as client:
        with pytest.raises(CallFailed) as failed:
            await client.send(call())
    assert failed.value.reason == HEALS[name][1]
    assert server.count == 3
    assert (use(client).calls, use(client).retries, use(client).failed) == (0, 2, 1)
    assert client.pool("m").in_flight == 0


async def test_a_server_that_hangs_is_given_up_after_the_timeout(server: EngineServer):
    server.fail(slow(3600))
    async with client_of(server.url, timeout_s=0.3) as client:
        start = time.monotonic()
        assert (await client.send(call())).text
        assert 0.3 <= time.monotonic() - start < 2
    assert use(client).retries == 1


async def test_a_slow_answer_is_awaited(server: EngineServer):
    server.fail(slow(0.3))
    async with client_of(server.url) as client:
        assert (await client.send(call())).seconds >= 0.3
    assert use(client).retries == 0


async def test_a_host_that_takes_no_connection_is_unreachable(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "CONNECT_TIMEOUT_S", 0.2)
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fill = [socket.socket() for _ in range(4)]  # its queue is full, so further connections hang
        for one in fill:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        async with client_of(f"http://127.0.0.1:{deaf.getsockname()[1]}/v1", retries=0) as client:
            with pytest.raises(CallFailed, match="no connection within") as failed:
                await client.send(call())
        for one in fill:
            one.close()
    assert failed.value.reason == "connection"


@pytest.mark.parametrize("header", ["0.4", "date"])
async def test_retry_after_is_honoured(server: EngineServer, header: str):
    until = time.time() + 2 if header == "date" else time.time() + 0.4
    server.fail(status(429, retry_after=formatdate(until, usegmt=True) if header == "date" else header))
    async with client_of(server.url) as client:
        await client.send(call())
    assert time.time() >= int(until) if header == "date" else time.time() >= until


async def test_a_retry_after_of_hours_is_no_hang(server: EngineServer):
    server.fail(status(429, "daily quota", retry_after=7200))
    async with client_of(server.url) as client:
        with pytest.raises(EngineError, match="7200 s"):
            await client.send(call())


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
async def test_a_refused_request_rejects_the_call_at_once(server: EngineServer, fault, reason: str, says: str):
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
        (status(403, "not yours"), "not yours"),
        (status(405, ""), "endpoint.url"),
        (moved, "endpoint.url"),
        (status(429, "You exceeded your current quota", code="insufficient_quota"), "quota"),
    ],
)
async def test_a_model_that_is_not_served_is_an_engine_error_at_once(server: EngineServer, fault, says: str):
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
    server.fail(text('{"choices": [{"message": {"content": "cut \\ud83d"}, "finish_reason": "length"}]}'))
    async with client_of(server.url) as client:
        reply = await client.send(call())
    assert reply.text.encode().startswith(b"cut ")
    assert use(client).truncated == 1


async def test_the_key_is_sent_and_never_shown(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.DEBUG)
    with EngineServer("m", key=KEY) as server:
        async with client_of(server.url, key=KEY) as client:
            assert (await client.send(call())).text
            server.key = "another"  # this server repeats the wrong key in its error
            with pytest.raises(EngineError) as failed:
                await client.send(call())
            server.fail(text(f"your key {KEY} is busy", 500), times=3)
            with pytest.raises(CallFailed) as busy:
                await client.send(call())
    for seen in (str(failed.value), str(busy.value), caplog.text, repr(client.pool("m").endpoints)):
        assert KEY not in seen
    assert "***" in str(failed.value)


async def test_what_a_server_says_is_shown_in_one_short_line(server: EngineServer):
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


async def test_after_a_fault_the_endpoint_is_used_in_full_again(server: EngineServer):
    server.fail(status(500))
    server.delay_s = 0.05
    async with client_of(server.url, in_flight=4) as client:
        await client.send(call())
        await asyncio.gather(*(client.send(call(str(i))) for i in range(8)))
    assert server.at_once == 4


async def test_two_servers_share_the_calls():
    with EngineServer("m", delay_s=0.02) as one, EngineServer("m", delay_s=0.02) as two:
        async with client_of(one.url, two.url) as client:
            await asyncio.gather(*(client.send(call(str(i))) for i in range(20)))
    assert (one.count, two.count) == (10, 10)


async def test_a_dead_server_does_not_swallow_what_the_others_can_answer(server: EngineServer):
    server.delay_s = 0.01
    async with client_of(f"http://127.0.0.1:{free_port()}/v1", server.url, retries=6, in_flight=2) as client:
        replies = await asyncio.gather(*(client.send(call(str(i))) for i in range(40)))
    assert len(replies) == server.count == 40
    assert use(client).failed == 0


async def test_a_model_whose_only_server_is_gone_ends_the_run_instead_of_rejecting_rows(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "MAX_BACKOFF_S", 0.01)
    async with client_of(f"http://127.0.0.1:{free_port()}/v1", retries=1_000, timeout_s=0.3) as client:
        with pytest.raises(EngineError, match="no server could be reached"):
            await client.send(call())


async def test_an_engine_that_is_started_again_costs_the_call_no_retry(server: EngineServer, longest_backoff):
    async with client_of(retries=0) as client:
        dead = Endpoint(f"http://127.0.0.1:{free_port()}/v1", "m")
        client.pool("m").add(dead)
        sending = asyncio.create_task(client.send(call()))
        await until(lambda: use(client).seconds)
        client.pool("m").remove(dead)  # its keeper saw it die
        await asyncio.sleep(0.4)
        assert not sending.done(), "a call failed although its engine only restarts"
        client.pool("m").add(Endpoint(server.url, "m"))
        assert (await sending).text
    assert use(client).retries == 1


async def test_a_call_that_kills_every_server_ends(longest_backoff):
    async with client_of(retries=0) as client:
        pool, killed = client.pool("m"), 0
        sending = asyncio.create_task(client.send(call()))
        while not sending.done():
            endpoint = Endpoint(f"http://127.0.0.1:{free_port()}/v1", "m")
            pool.add(endpoint)
            await until(lambda seen=endpoint: seen.faults or sending.done())
            pool.remove(endpoint)
            killed += endpoint.faults
        with pytest.raises(CallFailed, match="connection"):
            await sending
    assert killed == module.MAX_LOST + 1


async def test_cancelling_a_call_gives_its_place_back(server: EngineServer):
    server.fail(slow(3600))
    async with client_of(server.url, in_flight=1) as client:
        hanging = asyncio.create_task(client.send(call("hang")))
        await until(lambda: server.count)
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
            await client.ready("m", 0.3)


async def test_ready_does_not_wait_for_a_wrong_key():
    with EngineServer("m", key=KEY) as server:
        async with client_of(server.url) as client:
            start = time.monotonic()
            with pytest.raises(EngineError, match="401"):
                await client.ready("m", 60)
            assert time.monotonic() - start < 5


@pytest.mark.parametrize("url", ["localhost:8000/v1", "ftp://host/v1", "http://", "http://[bad/v1"])
async def test_an_address_that_is_none(url: str):
    async with client_of(url) as client:
        with pytest.raises(EngineError, match=r"endpoint\.url"):
            await client.send(call())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(seen: Callable[[], object]) -> None:
    while not seen():  # noqa: ASYNC110  # what is watched belongs to the code under test and to another thread
        await asyncio.sleep(0.001)
