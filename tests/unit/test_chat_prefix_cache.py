"""What the engines' prefix caches served, by the engines' counters."""

from __future__ import annotations

import pytest

from moaa.chat.client import Client
from moaa.chat.pool import Endpoint
from moaa.chat.prefix_cache import Counts, counts_of
from moaa.ledger import Ledger, summed
from moaa.recipe.schema import Calls
from tests.support.engine_server import EngineServer


def metrics(queries: float, hits: float) -> str:
    labels = '{engine="0",model_name="m"}'
    return (
        "# HELP vllm:prefix_cache_queries_total Prefix cache queries, in tokens.\n"
        f"vllm:prefix_cache_queries_total{labels} {queries}\n"
        f"vllm:prefix_cache_hits_total{labels} {hits}\n"
        f"vllm:external_prefix_cache_hits_total{labels} 99.0\n"
    )


def test_engines_of_one_server_add_up() -> None:
    two = metrics(100.0, 40.0) + metrics(10.0, 1.0)
    assert counts_of(two) == Counts(110, 41)


@pytest.mark.parametrize(
    "text", ["", "up 1\n", "vllm:prefix_cache_hits_total 3\n", metrics(float("nan"), 1)]
)
def test_other_metrics_are_no_counts(text: str) -> None:
    assert counts_of(text) is None


async def test_only_what_is_counted_since_the_first_look_is_ours() -> None:
    ledger = Ledger()
    with EngineServer("m") as server:
        async with Client(Calls(), ledger) as client:
            client.pool("judge").add(Endpoint(server.url, "m"))
            caches = client.prefix_caches()
            server.metrics = metrics(1000, 900)
            await caches.look(new=True)
            assert ledger.model("judge").prefix_hit_rate is None
            server.metrics = metrics(1200, 950)
            await caches.look(new=True)
            await caches.look()
            assert ledger.model("judge").prefix_hit_rate == 0.25
            server.metrics = metrics(100, 100)  # started again
            await caches.look()
            use = ledger.model("judge")
            assert (use.prefix_queries, use.prefix_hits) == (300, 150)
    assert summed([ledger.models, ledger.models])["judge"].prefix_hit_rate == 0.5


async def test_a_server_without_counters_is_asked_once() -> None:
    ledger = Ledger()
    with EngineServer("m") as server:
        async with Client(Calls(), ledger) as client:
            client.pool("judge").add(Endpoint(server.url, "m"))
            caches = client.prefix_caches()
            for _ in range(3):
                await caches.look()
            assert len(server.looks) == 1
            assert ledger.model("judge").prefix_hit_rate is None
