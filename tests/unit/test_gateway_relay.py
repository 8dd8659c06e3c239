"""Bytes of streams: whole events, errors, and what they say of tokens."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from moaa.gateway.backend import Backend
from moaa.gateway.body import parse_body
from moaa.gateway.relay import Broken, Stream, Usage, end, relay, usage_in

EVENT = b'data: {"choices":[{"delta":{"content":"a"}}]}\n\n'
USAGE = b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":0}}\n\n'
DONE = b"data: [DONE]\n\n"


class Parts:
    """The body of an engine's answer, in these parts; an exception is raised."""

    def __init__(self, *parts: bytes | Exception) -> None:
        self.parts = list(parts)

    async def readany(self) -> bytes:
        part = self.parts.pop(0) if self.parts else b""
        if isinstance(part, Exception):
            raise part
        return part


class Client:
    """What a client gets, write by write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []

    async def write(self, data: bytes) -> None:
        await asyncio.sleep(0)
        self.writes.append(data)


async def relayed(*parts: bytes | Exception, **more: Any) -> tuple[list[bytes], Stream]:
    client, stream = Client(), Stream(0.0)
    first, *rest = parts
    assert isinstance(first, bytes)
    content = cast(aiohttp.StreamReader, Parts(*rest))
    response = cast(web.StreamResponse, client)
    await relay(first, content, response, stream, **more)
    await end(response, stream)
    return client.writes, stream


async def test_events_go_on_as_they_come() -> None:
    writes, _ = await relayed(EVENT, EVENT + EVENT, DONE)
    assert writes == [EVENT, EVENT + EVENT, DONE]


@pytest.mark.parametrize("at", range(1, len(EVENT)))
async def test_half_an_event_waits_for_its_other_half(at: int) -> None:
    writes, _ = await relayed(EVENT + EVENT[:at], EVENT[at:], DONE)
    assert writes == [EVENT, EVENT, DONE]


async def test_other_ends_of_lines() -> None:
    carriage = EVENT.replace(b"\n", b"\r\n")
    writes, _ = await relayed(b": a comment\r\n\r\n", carriage + carriage[:9], carriage[9:], DONE)
    assert b"".join(writes) == b": a comment\r\n\r\n" + carriage * 2 + DONE


async def test_a_last_event_without_an_empty_line() -> None:
    writes, _ = await relayed(EVENT, b"data: [DONE]\n")
    assert writes == [EVENT, DONE]


@pytest.mark.parametrize(
    ("parts", "why"),
    [
        ((EVENT, EVENT[:9]), "is incomplete"),
        ((EVENT,), "its end did not come"),
        ((EVENT, aiohttp.ClientPayloadError("cut")), "cut"),
        ((EVENT, aiohttp.SocketTimeoutError()), "nothing came for too long"),
        ((EVENT, ConnectionResetError()), "ConnectionResetError"),
    ],
)
async def test_an_engine_that_breaks_off(parts: tuple[bytes | Exception, ...], why: str) -> None:
    with pytest.raises(Broken, match=why):
        await relayed(*parts)


async def test_usage_is_kept_and_taken_out() -> None:
    writes, stream = await relayed(EVENT, USAGE + DONE, without_usage=True)
    assert writes == [EVENT, DONE]
    assert usage_in(stream.usage_chunk) == Usage(3, 0)
    writes, _ = await relayed(EVENT, USAGE, DONE)
    assert writes == [EVENT, USAGE, DONE]


async def test_usage_in_a_chunk_with_text_stays() -> None:
    both = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":{"prompt_tokens":1}}\n\n'
    none = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n'
    writes, stream = await relayed(both, none, DONE, without_usage=True)
    assert writes == [both, none, DONE]
    assert usage_in(stream.usage_chunk) == Usage(1, 0)


async def test_an_error_within_a_stream_shows_no_key_of_the_servers() -> None:
    backend = Backend("m", key="sk-of-the-servers\n")
    said = b'data: {"error": {"message": "wrong key: sk-of-the-servers"}}\n\n'
    writes, _ = await relayed(EVENT, said, DONE, hidden=backend.hidden)
    assert b"wrong key: ***" in b"".join(writes)
    assert b"sk-of" not in b"".join(writes)
    short = Backend("m", key="a")
    writes, _ = await relayed(
        EVENT.replace(b'"a"', b'"a \\"error\\" a"'), DONE, hidden=short.hidden
    )
    assert b"a error a" in b"".join(writes).replace(b'\\"', b"")


async def test_errors_within_a_stream_are_openai_s_too() -> None:
    vllm = {"error": {"message": "too long", "type": "BadRequestError", "param": None, "code": 400}}
    event = f"data: {json.dumps(vllm)}\n\n".encode()
    text = b'data: {"choices":[{"delta":{"content":"\\"error\\" {"}}],"error":null}\n\n'
    writes, _ = await relayed(text, event + DONE)
    assert writes[0] == text
    error = json.loads(writes[1].split(b"\n\n")[0].removeprefix(b"data: "))["error"]
    assert (error["code"], error["type"]) == ("context_length_exceeded", "invalid_request_error")


@pytest.mark.parametrize(
    ("data", "usage"),
    [
        (b"", None),
        (b'{"usage": null}', None),
        (b'{"usage": {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}}', (4, 2)),
        (b'{"usage": {"input_tokens": 4, "output_tokens": 2}}', (4, 2)),
        (b'{"usage": {"prompt_tokens": 4, "prompt_tokens_details": null}}', (4, 0)),
        (b'{"content": "\\"usage\\": {}", "usage": {"prompt_tokens": 1}}', (1, 0)),
        (b'{"usage": {"prompt_tokens": true}}', (0, 0)),
        (b'{"usage": {"prompt_tok', None),
    ],
)
def test_usage_in_answers(data: bytes, usage: tuple[int, int] | None) -> None:
    found = usage_in(data)
    assert (found and (found.prompt, found.completion)) == usage


BODIES = [
    (b'{"model":"m","a":1}', b'{"model":"r","a":1}'),
    (b'{"a":{"model":"m"},"model":"m"}', b'{"a":{"model":"m"},"model":"r"}'),
    (b'{"model":"m","model":"m"}', b'{"model":"r","model":"r"}'),
    (b'{"mo\\u0064el":"m"}', b'{"mo\\u0064el":"r"}'),
    (b' {"x":"\xc3\xa9\\ud83d", "model" : "m" } ', b' {"x":"\xc3\xa9\\ud83d", "model" : "r" } '),
]


@pytest.mark.parametrize(("given", "expected"), BODIES)
def test_the_name_alone_is_replaced(given: bytes, expected: bytes) -> None:
    body = parse_body(given)
    assert body.for_model("m") is body.raw
    assert body.for_model("r") == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (b'{"model":"m"}', b'{"stream_options":{"include_usage": true},"model":"m"}'),
        (
            b'{"a":"\\"model\\"", "model":"m"}',
            b'{"stream_options":{"include_usage": true},"a":"\\"model\\"", "model":"m"}',
        ),
        (
            b'{"model":"m","stream_options":{"x":1}}',
            b'{"model":"m","stream_options":{"x": 1, "include_usage": true}}',
        ),
        (
            b'{"stream_options":null,"model":"m"}',
            b'{"stream_options":{"include_usage": true},"model":"m"}',
        ),
        (
            b'{"model":"m","stream_options":{"include_usage":true}}',
            b'{"model":"m","stream_options":{"include_usage":true}}',
        ),
    ],
)
def test_usage_can_be_asked_for(given: bytes, expected: bytes) -> None:
    asked = parse_body(given).for_model("m", with_usage=True)
    assert asked == expected
    assert json.loads(asked)["stream_options"]["include_usage"] is True
