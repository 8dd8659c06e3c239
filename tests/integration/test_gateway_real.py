"""The official client against the gateway over a real vLLM: answers, errors, and who leaves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI
from pydantic import BaseModel

from tests.support.gateways import Running, gateway_of
from tests.support.real_engine import RealEngine
from tests.support.waiting import async_until

pytestmark = pytest.mark.real

MESSAGES: Any = [{"role": "user", "content": "Name a colour."}]


@asynccontextmanager
async def client_of(engine: RealEngine) -> AsyncIterator[tuple[AsyncOpenAI, Running]]:
    """A client of the model `colours`, which the engine knows by another name."""
    models = {"colours": {"endpoints": [engine.url], "served_name": engine.model}}
    async with (
        gateway_of({"models": models}) as running,
        AsyncOpenAI(base_url=running.url, api_key="any", max_retries=0) as client,
    ):
        yield client, running


async def test_whole_and_streamed_answers(engine: RealEngine) -> None:
    async with client_of(engine) as (client, running):
        asked: Any = {"model": "colours", "messages": MESSAGES, "max_tokens": 8, "temperature": 0}
        whole = await client.chat.completions.create(**asked, extra_body={"ignore_eos": True})
        assert whole.usage
        assert whole.usage.completion_tokens == 8
        chunks = await client.chat.completions.create(
            **asked,
            extra_body={"ignore_eos": True},
            stream=True,
            stream_options={"include_usage": True},
        )
        streamed = [chunk async for chunk in chunks]
        said = "".join(chunk.choices[0].delta.content or "" for chunk in streamed if chunk.choices)
        assert said == whole.choices[0].message.content
        assert streamed[-1].usage
        assert streamed[-1].usage.total_tokens == whole.usage.total_tokens
        counted = running.gateway.metrics.tokens.value("colours", "colours", "completion")
        assert counted == 16


class Colour(BaseModel):
    name: str


async def test_structured_answers_and_completions(engine: RealEngine) -> None:
    async with client_of(engine) as (client, _):
        found: object
        try:
            parsed = await client.chat.completions.parse(
                model="colours", messages=MESSAGES, max_tokens=100, response_format=Colour
            )
        except openai.LengthFinishReasonError as cut:  # a small model may go on and on
            found = cut.completion.choices[0].message.content
        else:
            found = parsed.choices[0].message.parsed
        assert found
        chunks = await client.completions.create(
            model="colours", prompt="Red, green,", max_tokens=4, stream=True
        )
        assert [chunk async for chunk in chunks]


async def test_errors_are_openai_s(engine: RealEngine) -> None:
    async with client_of(engine) as (client, _):
        with pytest.raises(openai.BadRequestError) as long:
            await client.chat.completions.create(
                model="colours", messages=[{"role": "user", "content": "word " * 9_000}]
            )
        assert (long.value.code, isinstance(long.value.type, str)) == (
            "context_length_exceeded",
            True,
        )
        with pytest.raises(openai.BadRequestError) as odd:
            await client.chat.completions.create(
                model="colours", messages=MESSAGES, extra_body={"temperature": "warm"}
            )
        assert isinstance(odd.value.body, dict)
        assert set(odd.value.body) == {"message", "type", "param", "code"}
        with pytest.raises(openai.NotFoundError) as none:
            await client.chat.completions.create(model="smol", messages=MESSAGES)
        assert none.value.code == "model_not_found"
        with pytest.raises(openai.APIStatusError) as vectors:
            await client.embeddings.create(model="colours", input="a")
        assert isinstance(vectors.value.body, dict)
        assert vectors.value.request_id


@pytest.mark.parametrize("streamed", [True, False])
async def test_who_leaves_ends_the_engine_s_work(engine: RealEngine, streamed: bool) -> None:
    body = {
        "model": "colours",
        "messages": MESSAGES,
        "max_tokens": 3_000,
        "ignore_eos": True,
        "stream": streamed,
    }

    def running_requests() -> float:
        return engine.counter("vllm:num_requests_running")

    async with client_of(engine) as (_, running):
        task = asyncio.create_task(
            running.http.post(
                f"{running.url}/chat/completions", data=json.dumps(body).encode()
            ).__aenter__()
        )
        await async_until(lambda: running_requests() == 1, "the request", every_s=0.05)
        if task.done():
            task.result().close()
        task.cancel()
        await async_until(lambda: running_requests() == 0, "its end", timeout_s=5, every_s=0.05)
