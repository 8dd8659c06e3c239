"""The real engine's own words for what it refuses, read by the client as they are meant."""

from __future__ import annotations

import pytest

from moaa.chat.client import Client
from moaa.chat.message import Call
from moaa.chat.pool import Endpoint
from moaa.errors import CallRejected, EngineError
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls, Sampling
from tests.support.real_engine import RealEngine

pytestmark = pytest.mark.real


@pytest.mark.parametrize(
    ("text", "sampling"),
    [
        ("word " * 20_000, Sampling(max_tokens=8)),
        ("Hello", Sampling(max_tokens=1_000_000)),
    ],
    ids=["prompt", "max_tokens"],
)
async def test_more_than_the_context_rejects_the_call(
    engine: RealEngine, text: str, sampling: Sampling
) -> None:
    async with Client(Calls(), Ledger()) as client:
        client.pool("smol").add(Endpoint(engine.url, engine.model))
        before = engine.requests()
        with pytest.raises(CallRejected) as rejected:
            await client.send(Call("smol", ({"role": "user", "content": text},), sampling))
        assert rejected.value.reason == "context length"
        assert "context length" in rejected.value.detail or "max_tokens" in rejected.value.detail
        assert engine.requests() == before + 1, "it was asked again although that changes nothing"


async def test_a_name_that_it_does_not_know_is_an_engine_error(engine: RealEngine) -> None:
    async with Client(Calls(), Ledger()) as client:
        client.pool("smol").add(Endpoint(engine.url, "another"))
        with pytest.raises(EngineError, match="another"):
            await client.send(
                Call("smol", ({"role": "user", "content": "Hello"},), Sampling(max_tokens=8))
            )
