"""Every fault that a server can have: what heals is retried, elsewhere if it can be; what does not
heal ends."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import replace
from email.utils import formatdate

import pytest

from moaa.chat import client as module
from moaa.chat.pool import Endpoint
from moaa.errors import CallFailed, EngineError
from tests.support.clients import QUICK, call, client_of, free_port, use
from tests.support.engine_server import EngineServer, reset, slow, status, text
from tests.support.waiting import async_until

SLOW = replace(QUICK, backoff_s=0.2, max_backoff_s=0.2)


@pytest.fixture
def server(server: EngineServer) -> EngineServer:
    """The faults are those of the calls; the checks in between find the server well."""
    server.answers_probes = True
    return server


@pytest.fixture
def longest_backoff(monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest of the random times: with `SLOW`, a test can take the endpoint away before the
    call looks."""
    monkeypatch.setattr("random.uniform", lambda low, high: high)


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


@pytest.mark.parametrize("name", [name for name in HEALS if name != "429"])
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
    async with client_of(server.url, timeout_s=2) as client:
        start = time.monotonic()
        assert (await client.send(call())).text
        assert 2 <= time.monotonic() - start < 20
    assert use(client).retries == 1


async def test_a_slow_answer_is_awaited(server: EngineServer):
    server.fail(slow(0.3))
    async with client_of(server.url) as client:
        assert (await client.send(call())).seconds >= 0.3
    assert use(client).retries == 0


async def test_a_host_that_takes_no_connection_is_unreachable():
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        fill = [socket.socket() for _ in range(4)]  # its queue is full, so further connections hang
        for one in fill:
            one.setblocking(False)
            one.connect_ex(deaf.getsockname())
        async with client_of(
            f"http://127.0.0.1:{deaf.getsockname()[1]}/v1",
            retries=0,
            timeout_s=0.5,
            timing=replace(QUICK, connect_timeout_s=0.1),
        ) as client:
            with pytest.raises(EngineError, match=r"could not be reached .*no connection within"):
                await client.send(call())
        for one in fill:
            one.close()


@pytest.mark.parametrize("header", ["0.4", "date"])
async def test_retry_after_is_honoured(server: EngineServer, header: str):
    until = time.time() + 2 if header == "date" else time.time() + 0.4
    server.fail(
        status(429, retry_after=formatdate(until, usegmt=True) if header == "date" else header)
    )
    async with client_of(server.url) as client:
        await client.send(call())
    assert time.time() >= int(until) if header == "date" else time.time() >= until


async def test_a_dead_server_does_not_swallow_what_the_others_can_answer(server: EngineServer):
    server.delay_s = 0.01
    async with client_of(
        f"http://127.0.0.1:{free_port()}/v1", server.url, retries=6, in_flight=2
    ) as client:
        replies = await asyncio.gather(*(client.send(call(str(i))) for i in range(40)))
    assert len(replies) == server.count == 40
    assert use(client).failed == 0


async def test_a_model_whose_only_server_is_gone_ends_the_run_instead_of_rejecting_rows():
    timing = replace(QUICK, max_backoff_s=0.01)
    url = f"http://127.0.0.1:{free_port()}/v1"
    async with client_of(url, timing=timing, retries=1_000, timeout_s=0.3) as client:
        with pytest.raises(EngineError, match=r"could not be reached for \d+ s"):
            await client.send(call())


async def test_an_engine_that_is_started_again_costs_the_call_no_retry(
    server: EngineServer, longest_backoff
):
    async with client_of(timing=SLOW, retries=0) as client:
        dead = Endpoint(f"http://127.0.0.1:{free_port()}/v1", "m")
        client.pool("m").add(dead)
        sending = asyncio.create_task(client.send(call()))
        await async_until(lambda: use(client).seconds)
        client.pool("m").remove(dead)  # its keeper saw it die
        await asyncio.sleep(0.4)
        assert not sending.done(), "a call failed although its engine only restarts"
        client.pool("m").add(Endpoint(server.url, "m"))
        assert (await sending).text
    assert use(client).retries == 1


async def test_a_call_that_kills_every_server_ends(longest_backoff):
    async with client_of(timing=SLOW, retries=0) as client:
        pool, killed = client.pool("m"), 0
        sending = asyncio.create_task(client.send(call()))
        while not sending.done():
            endpoint = Endpoint(f"http://127.0.0.1:{free_port()}/v1", "m")
            pool.add(endpoint)
            await async_until(lambda: endpoint.in_doubt or sending.done())  # noqa: B023 (at once)
            pool.remove(endpoint)
            killed += endpoint.in_doubt
        with pytest.raises(CallFailed, match="connection"):
            await sending
    assert killed == module.MAX_SERVER_LOSSES + 1


async def test_after_a_fault_the_endpoint_is_used_in_full_again(server: EngineServer):
    server.fail(status(500))
    server.delay_s = 0.05
    async with client_of(server.url, in_flight=4) as client:
        await client.send(call())
        await asyncio.gather(*(client.send(call(str(i))) for i in range(8)))
    assert server.at_once == 4
