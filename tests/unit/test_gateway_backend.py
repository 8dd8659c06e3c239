"""Which replica gets the next request, and how replicas in doubt are found to be well again."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import ExitStack

import pytest

from moaa.gateway import checks
from moaa.gateway.backend import SLACK, Backend
from moaa.gateway.metrics import Counter as Count
from moaa.gateway.metrics import Gauge, Histogram, Metrics
from moaa.gateway.wire import ApiError
from tests.support.clients import free_port
from tests.support.engine_server import reset, status
from tests.support.gateways import ask, gateway_of, of
from tests.support.streaming_engine import StreamingEngine
from tests.support.waiting import async_until

URLS = [f"http://127.0.0.1:{port}/v1" for port in (1, 2, 3)]


def test_the_one_with_the_fewest_in_flight_is_next() -> None:
    backend = Backend("m", URLS)
    with ExitStack() as stack:
        for _ in range(9):
            stack.enter_context(backend.replica())
        assert [each.endpoint.in_flight for each in backend.replicas.values()] == [3, 3, 3]
        assert backend.in_flight == 9
    assert backend.in_flight == 0


def test_equal_ones_take_turns() -> None:
    backend = Backend("m", URLS)
    seen: Counter[str] = Counter()
    for _ in range(9):
        with backend.replica() as replica:
            seen[replica.url] += 1
    assert set(seen.values()) == {3}


def test_a_conversation_keeps_its_replica_while_that_is_not_much_busier() -> None:
    backend = Backend("m", URLS)
    with backend.replica("conversation 1") as own, ExitStack() as stack:
        for _ in range(SLACK):
            with backend.replica("conversation 1") as again:
                assert again is own
            own.endpoint.in_flight += 1
            stack.callback(backend.pool.release, own.endpoint)
        with backend.replica("conversation 1") as other:
            assert other is not own
    homes = set()
    for number in range(50):
        with backend.replica(f"conversation {number}") as replica:
            homes.add(replica.url)
    assert homes == set(URLS)


def test_replicas_come_and_go_while_requests_are_in_flight() -> None:
    backend = Backend("m", URLS[:1])
    with backend.replica() as old:
        backend.set_replicas(URLS[1:2])
        assert old.endpoint.in_flight == 1
        with backend.replica() as new:
            assert new.url == URLS[1]
    backend.set_replicas([])
    assert backend.state == "down"
    with pytest.raises(ApiError, match="model_not_up"), backend.replica():
        pass
    backend.asleep = True
    with pytest.raises(ApiError, match="model_asleep"), backend.replica():
        pass


async def test_one_in_doubt_is_the_last_choice() -> None:
    backend = Backend("m", URLS[:2])
    first, second = backend.replicas.values()
    backend.failed(first)
    for _ in range(4):
        with backend.replica() as replica:
            assert replica is second
    with backend.replica(without=[second]) as replica:
        assert replica is first
    backend.failed(second)
    states = [backend.state]
    backend.answered(first)
    assert [*states, backend.state] == ["down", "ready"]


async def test_none_is_ready_before_it_has_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FIRST_REST_S", 0.01)
    with StreamingEngine("m") as engine:
        engine.fail(status(503, "loading"), times=2)
        config = of(engine)
        config["models"]["dead"] = {"endpoints": [f"http://127.0.0.1:{free_port()}/v1"]}
        async with gateway_of(config, checks=True) as running:
            url = running.url.removesuffix("/v1") + "/health"
            async with running.http.get(url) as answer:
                assert answer.status == 503
                assert (await answer.json())["models"] == {"m": "down", "dead": "down"}
            await async_until(lambda: running.gateway.backends["m"].state == "ready", "the engine")
            async with running.http.get(url) as answer:
                assert answer.status == 200
            assert engine.count == 3


async def test_one_that_failed_is_asked_until_it_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "FIRST_REST_S", 0.01)
    with StreamingEngine("m") as engine:
        engine.fail(reset(), times=4)
        async with gateway_of(of(engine)) as running:
            async with running.post("/chat/completions", ask()) as answer:
                assert answer.status == 502
            backend = running.gateway.backends["m"]
            assert backend.state == "down"
            await async_until(lambda: backend.state == "ready", "the engine")


async def test_idle_ones_are_looked_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(checks, "IDLE_S", 0.0)
    engine = StreamingEngine("m").__enter__()
    async with gateway_of(of(engine)) as running:
        task = asyncio.create_task(running.gateway.checks.watch())
        backend = running.gateway.backends["m"]
        await asyncio.to_thread(engine.__exit__)
        await async_until(lambda: backend.state == "down", "its end")
        task.cancel()


def test_numbers_as_prometheus_reads_them() -> None:
    count, gauge = Count("a_total", "A.", ("x",)), Gauge("b", "B.")
    seconds = Histogram("s", "S.", ("x",), (0.1, 1))
    count.add('say "hi"\n\\')
    gauge.set(to=2.5)
    for value in (0.1, 0.5, 7):
        seconds.add(value, "m")
    assert list(count.lines()) == ['moaa_gateway_a_total{x="say \\"hi\\"\\n\\\\"} 1']
    assert list(gauge.lines()) == ["moaa_gateway_b 2.5"]
    assert list(seconds.lines()) == [
        'moaa_gateway_s_bucket{x="m",le="0.1"} 1',
        'moaa_gateway_s_bucket{x="m",le="1"} 2',
        'moaa_gateway_s_bucket{x="m",le="+Inf"} 3',
        'moaa_gateway_s_sum{x="m"} 7.6',
        'moaa_gateway_s_count{x="m"} 3',
    ]
    text = Metrics().text()
    assert text.count("# TYPE") == text.count("# HELP") == len(vars(Metrics()))
