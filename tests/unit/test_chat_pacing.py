"""Requests in flight follow an engine's load; a server without metrics is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from moaa.chat.client import Client
from moaa.chat.message import Call
from moaa.chat.pacing import CALM, LEAST, LOWERED, Load, Pace, Pacing, load_of, next_pace
from moaa.chat.pool import Endpoint, Pool
from moaa.ledger import Ledger
from moaa.recipe.places import Places
from moaa.recipe.schema import Calls, Sampling
from tests.support.engine_server import EngineServer

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 200.0
vllm:num_requests_waiting{engine="0",model_name="m"} 3.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 3.0
vllm:num_preemptions_total{engine="0",model_name="m"} 12.0
vllm:num_preemptions_created{engine="0",model_name="m"} 1.7e+09
"""


def metrics(running: int, waiting: int, preemptions: int = 0) -> str:
    return (
        f'vllm:num_requests_running{{engine="0"}} {running}.0\n'
        f'vllm:num_requests_waiting{{engine="0"}} {waiting}.0\n'
        f'vllm:num_preemptions_total{{engine="0"}} {preemptions}.0\n'
    )


def test_vllms_load_is_read() -> None:
    assert load_of(METRICS) == Load(running=200, waiting=3, preemptions=12)


def test_the_engines_of_one_server_are_summed() -> None:
    assert load_of(METRICS + METRICS.replace('engine="0"', 'engine="1"')) == Load(400, 6, 24)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "<html>Not here</html>",
        "process_cpu_seconds_total 3.0\n",
        METRICS.replace("200.0", "NaN"),
        METRICS.replace("200.0", "+Inf"),
        METRICS.replace("200.0", "many"),
        METRICS.replace("num_requests_waiting{", "other{"),
    ],
)
def test_other_metrics_are_no_load(text: str) -> None:
    assert load_of(text) is None


CALM_LOAD = Load(running=60, waiting=0)


def test_a_queue_that_stays_lowers_the_number() -> None:
    queue = Load(running=100, waiting=90)
    assert next_pace(Pace(200), queue, CALM_LOAD, used=190, most=1024) == Pace(200), (
        "a queue at one look alone is a burst of prompts"
    )
    assert next_pace(Pace(200), queue, queue, used=190, most=1024) == Pace(150, CALM)


def test_preemptions_lower_the_number_at_once() -> None:
    before, now = Load(100, 0, preemptions=5), Load(100, 0, preemptions=6)
    assert next_pace(Pace(200), now, before, used=200, most=1024) == Pace(150, CALM)


def test_a_server_whose_places_are_all_used_gets_more() -> None:
    assert next_pace(Pace(256), CALM_LOAD, CALM_LOAD, used=256, most=1024) == Pace(288)
    assert next_pace(Pace(1000), CALM_LOAD, CALM_LOAD, used=1000, most=1024) == Pace(1024)
    assert next_pace(Pace(256), CALM_LOAD, CALM_LOAD, used=255, most=1024) == Pace(256)
    waits = Load(running=256, waiting=1)
    assert next_pace(Pace(256), waits, waits, used=256, most=1024) == Pace(256), "it is full"


def test_after_it_was_lowered_the_number_stays_for_a_while() -> None:
    pace = Pace(100, CALM)
    for _ in range(CALM):
        pace = next_pace(pace, CALM_LOAD, CALM_LOAD, used=100, most=1024)
        assert pace.places == 100
    assert next_pace(pace, CALM_LOAD, CALM_LOAD, used=100, most=1024).places > 100


loads = st.builds(Load, st.integers(0, 2000), st.integers(0, 2000), preemptions=st.integers(0, 9))


@given(st.integers(1, 1024), st.integers(0, CALM), loads, loads, st.integers(0, 2000))
def test_the_number_stays_in_its_bounds(
    places: int, calm: int, load: Load, before: Load, used: int
) -> None:
    pace = next_pace(Pace(places, calm), load, before, used, most=1024)
    assert min(LEAST, places) <= pace.places <= 1024
    assert 0 <= pace.calm <= CALM


@given(st.lists(loads, min_size=2, max_size=2))
def test_an_engine_that_cannot_keep_up_gets_down_to_the_least(found: list[Load]) -> None:
    stuck, pace = Load(running=1, waiting=500), Pace(1024)
    for _ in range(40):
        pace = next_pace(pace, stuck, stuck, used=pace.places, most=1024)
    assert pace.places == LEAST


@pytest.fixture
def server() -> Iterator[EngineServer]:
    with EngineServer("m", key="secret") as running:
        yield running


@pytest.fixture
async def client() -> AsyncIterator[Client]:
    async with Client(Calls(), Ledger()) as opened:
        yield opened


def followed(server: EngineServer, client: Client, places: Places) -> tuple[Pool, Endpoint]:
    endpoint = Endpoint(server.url, "m", key="secret", places=places)
    client.pool("m").add(endpoint)
    return client.pool("m"), endpoint


def pacing_of(client: Client) -> tuple[Pacing, Ledger]:
    ledger = Ledger()
    return Pacing(client.pools, client._http.metrics, ledger), ledger


async def test_the_places_follow_the_servers_metrics(server: EngineServer, client: Client) -> None:
    pool, endpoint = followed(server, client, Places(16, 64, follows=True))
    pacing, ledger = pacing_of(client)
    taken = [await pool.acquire() for _ in range(16)]
    waits = asyncio.ensure_future(pool.acquire())
    server.metrics = metrics(16, 0)
    await pacing.look()
    assert pool.limit(endpoint) == 16, "the first look only sees what was before"
    await pacing.look()
    assert pool.limit(endpoint) == 18
    assert await waits is endpoint, "a call that waits gets the new place"
    server.metrics = metrics(16, 0, preemptions=1)
    await pacing.look()
    assert pool.limit(endpoint) == 13
    assert endpoint.in_flight == 17, "what is in flight goes on"
    assert ledger.events[LOWERED] == 1
    assert pool.most == 64
    for each in [*taken, endpoint]:
        pool.release(each)


async def test_no_key_is_sent_for_metrics(server: EngineServer, client: Client) -> None:
    followed(server, client, Places(16, 64, follows=True))
    await pacing_of(client)[0].look()
    (headers,) = server.looks
    assert "Authorization" not in headers


@pytest.mark.parametrize("text", [None, "<html></html>", "up 1.0\n"])
async def test_a_server_without_metrics_is_asked_once_and_keeps_its_number(
    server: EngineServer, client: Client, text: str | None
) -> None:
    pool, endpoint = followed(server, client, Places(16, 64, follows=True))
    pacing, _ = pacing_of(client)
    server.metrics = text
    for _ in range(3):
        await pacing.look()
    assert len(server.looks) == 1
    assert pool.limit(endpoint) == 16
    assert not endpoint.in_doubt
    await client.send(Call("m", ({"role": "user", "content": "Hello"},), Sampling(max_tokens=1)))


async def test_a_server_that_is_away_is_looked_at_again(
    server: EngineServer, client: Client
) -> None:
    pool, endpoint = followed(server, client, Places(16, 64, follows=True))
    pacing, _ = pacing_of(client)
    url, endpoint.url = endpoint.url, "http://127.0.0.1:1/v1"
    await pacing.look()
    endpoint.url, server.metrics = url, metrics(1, 0)
    await pacing.look()
    assert len(server.looks) == 1
    assert pool.limit(endpoint) == 16


async def test_a_number_of_the_recipe_is_not_followed(server: EngineServer, client: Client) -> None:
    followed(server, client, Places(5, 5, follows=False))
    await pacing_of(client)[0].look()
    assert not server.looks
