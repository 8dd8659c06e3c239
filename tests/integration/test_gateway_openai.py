"""The official `openai` client against plain models: it is what most clients are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from pydantic import BaseModel

from tests.support.engine_server import context_length, reset, status, text
from tests.support.gateways import Running, gateway_of, of
from tests.support.streaming_engine import StreamingEngine

MESSAGES: Any = [{"role": "user", "content": "Hello"}]


@asynccontextmanager
async def client_of(
    streaming_engine: StreamingEngine, **more: Any
) -> AsyncIterator[tuple[AsyncOpenAI, Running]]:
    async with (
        gateway_of(of(streaming_engine)) as running,
        AsyncOpenAI(base_url=running.url, api_key="any", **{"max_retries": 0, **more}) as client,
    ):
        yield client, running


async def test_async_chat(streaming_engine: StreamingEngine) -> None:
    async with client_of(streaming_engine) as (client, _):
        reply = await client.chat.completions.create(
            model="m", messages=MESSAGES, max_tokens=4, extra_body={"min_p": 0.1}
        )
        assert reply.choices[0].message.content
        assert reply.usage
        assert reply.usage.completion_tokens == 4
        assert reply._request_id
    assert streaming_engine.requests[-1]["min_p"] == 0.1


async def test_sync_chat_and_stream(streaming_engine: StreamingEngine) -> None:
    async with gateway_of(of(streaming_engine)) as running:

        def work() -> tuple[str | None, str]:
            with OpenAI(base_url=running.url, api_key="any", max_retries=0) as client:
                reply = client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=4)
                chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
                said = [c.choices[0].delta.content or "" for c in chunks]
                return reply.choices[0].message.content, "".join(said)

        whole, streamed = await asyncio.to_thread(work)
    assert whole
    assert streamed == "".join(f"w{number} " for number in range(8))


async def test_the_stream_helper(streaming_engine: StreamingEngine) -> None:
    async with (
        client_of(streaming_engine) as (client, _),
        client.chat.completions.stream(
            model="m", messages=MESSAGES, stream_options={"include_usage": True}
        ) as stream,
    ):
        kinds = [event.type async for event in stream]
        final = await stream.get_final_completion()
    assert kinds.count("content.delta") == 8
    assert final.choices[0].finish_reason == "stop"
    assert final.usage
    assert final.usage.completion_tokens == 8


class Sky(BaseModel):
    colour: str


async def test_parse(streaming_engine: StreamingEngine) -> None:
    streaming_engine.say = lambda body: '{"colour": "blue"}'
    async with client_of(streaming_engine) as (client, _):
        reply = await client.chat.completions.parse(
            model="m", messages=MESSAGES, max_tokens=8, response_format=Sky
        )
    assert reply.choices[0].message.parsed == Sky(colour="blue")
    assert streaming_engine.requests[-1]["response_format"]["json_schema"]["name"] == "Sky"


async def test_models(streaming_engine: StreamingEngine) -> None:
    async with client_of(streaming_engine) as (client, _):
        assert [model.id async for model in client.models.list()] == ["m"]
        assert (await client.models.retrieve("m")).object == "model"
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("nothing")
    assert caught.value.code == "model_not_found"


async def test_completions_embeddings_and_responses(streaming_engine: StreamingEngine) -> None:
    async with client_of(streaming_engine) as (client, _):
        chunks = await client.completions.create(model="m", prompt="Hi", stream=True)
        assert "".join([c.choices[0].text async for c in chunks]).startswith("w0 w1 ")
        found = await client.embeddings.create(model="m", input=["a", "bcd"])
        assert [each.embedding for each in found.data] == [[0.5, 1.0], [0.5, 3.0]]
        reply = await client.responses.create(model="m", input="Hi")
        assert reply.id == "resp_1"
        events = await client.responses.create(model="m", input="Hi", stream=True)
        kinds = [event.type async for event in events]
        assert set(kinds[:-1]) == {"response.output_text.delta"}


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (context_length(), openai.BadRequestError, "context_length_exceeded"),
        (text('{"error":"Unauthorized"}', 401), openai.AuthenticationError, "invalid_api_key"),
        (text("no", 403), openai.PermissionDeniedError, "permission_denied"),
        (status(422, "bad"), openai.UnprocessableEntityError, None),
        (status(429, "slow"), openai.RateLimitError, "rate_limit_exceeded"),
        (text("<html>", 500), openai.InternalServerError, None),
        (text("Service Unavailable", 503), openai.InternalServerError, "unavailable"),
    ],
)
async def test_errors(
    streaming_engine: StreamingEngine,
    fault: Any,
    kind: type[openai.APIStatusError],
    code: str | None,
) -> None:
    streaming_engine.fail(fault)
    async with client_of(streaming_engine) as (client, _):
        with pytest.raises(kind) as caught:
            await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=4)
    error = caught.value
    assert (error.code, isinstance(error.type, str)) == (code, True)
    assert error.request_id
    assert isinstance(error.body, dict)
    assert set(error.body) == {"message", "type", "param", "code"}


async def test_raw_answers(streaming_engine: StreamingEngine) -> None:
    async with client_of(streaming_engine) as (client, _):
        raw = await client.chat.completions.with_raw_response.create(
            model="m", messages=MESSAGES, max_tokens=4, extra_headers={"x-request-id": "mine"}
        )
        assert (raw.headers["x-request-id"], raw.http_response.status_code) == ("mine", 200)
        assert raw.parse().choices
        async with client.chat.completions.with_streaming_response.create(
            model="m", messages=MESSAGES, stream=True
        ) as streamed:
            lines = [line async for line in streamed.iter_lines()]
    assert lines[-2:] in (["data: [DONE]", ""], ["", "data: [DONE]"])


async def test_retries_are_the_client_s_as_the_headers_say(
    streaming_engine: StreamingEngine,
) -> None:
    async with client_of(streaming_engine, max_retries=2) as (client, _):
        streaming_engine.fail(status(503, "Service Unavailable", retry_after=0.01))
        reply = await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=4)
        assert reply.choices
        before = streaming_engine.count
        streaming_engine.fail(status(400, "bad"), times=3)
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=4)
        assert streaming_engine.count == before + 1


async def test_a_broken_stream_raises(streaming_engine: StreamingEngine) -> None:
    streaming_engine.breaks_after = 2
    async with client_of(streaming_engine) as (client, _):
        chunks = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
        assert [(await anext(chunks)).choices[0].delta.content for _ in "12"] == ["w0 ", "w1 "]
        with pytest.raises(openai.APIError, match="broke off in the middle"):
            await anext(chunks)


async def test_a_connection_that_breaks_before_the_answer(
    streaming_engine: StreamingEngine,
) -> None:
    streaming_engine.fail(reset(), reset(), reset())
    async with client_of(streaming_engine) as (client, _):
        with pytest.raises(openai.InternalServerError) as caught:
            await client.chat.completions.create(model="m", messages=MESSAGES, max_tokens=4)
    assert (caught.value.status_code, caught.value.code) == (502, "bad_gateway")
