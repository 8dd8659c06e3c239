"""Passes the bytes of a stream from an engine to a client.

Complete events are passed on as they come. They are not read line by line, and nothing is kept: a
client that reads slowly slows its engine down, and costs no memory. An incomplete event waits for
its end, so that an error event can follow if the engine breaks off.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import aiohttp

from moaa.gateway.wire import DONE, of_engine

LONGEST_EVENT: Final = 32 << 20
_END: Final = b"\n\n"
_USAGE: Final = b'"usage"'
_ERROR: Final = b'"error"'
_ERROR_EVENT: Final = re.compile(rb'data:\s*(?=\{\s*"error")')
_STATUS: Final = re.compile(rb'"code":\s*([45]\d\d)\b')
"""vLLM puts the HTTP status into `code`."""
_FINISHED: Final = re.compile(rb'"finish_reason":\s*"')
_NO_USAGE: Final = re.compile(rb'"usage":\s*null')
_EMPTY_CHOICES: Final = re.compile(rb'"choices":\s*\[\s*\]')
_TEXT: Final = re.compile(
    rb'"(?:content|reasoning|reasoning_content|refusal|text|delta|arguments)":\s*"[^"]'
    rb'|"(?:tool_calls|embedding)":\s*\[\s*[^\s\]]|"embedding":\s*"'
)
"""How an answer with text, a tool call or a vector looks."""
_CUT: Final = re.compile(
    rb'"finish_reason":\s*"length"|"incomplete_details":\s*\{\s*"reason":\s*"max_output_tokens"'
)
_DECODER: Final = json.JSONDecoder()


class Writes(Protocol):
    """A response that takes the next bytes."""

    async def write(self, data: bytes) -> None:
        """Write the next bytes."""


class Broken(Exception):
    """The engine broke off: its last event is incomplete, or no end came."""


@dataclass(slots=True)
class Usage:
    """Tokens as an engine counted them."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    reasoning: int = 0

    @property
    def total(self) -> int:
        """Tokens of the prompt and of the answer."""
        return self.prompt + self.completion


@dataclass(eq=False, slots=True)
class Stream:
    """What is known about one stream. `moved`: the loop's time when a byte was last read or
    written; `writing`: whether it waits for the client."""

    moved: float
    writing: bool = False
    last: bytes = b""
    usage_chunk: bytes = b""
    tail: bytes = field(default=b"", repr=False)
    watched: bool = False
    """Whether its text is checked: the stream belongs to a promoted model."""
    text_seen: bool = False
    cut: bool = False
    """Whether the answer was cut at max_tokens."""

    def look_at(self, chunk: bytes) -> None:
        """Check whether these events have text, and whether the answer was cut."""
        self.text_seen = self.text_seen or bool(_TEXT.search(chunk))
        self.cut = self.cut or bool(_CUT.search(chunk))

    @property
    def done(self) -> bool:
        """Whether the end of the stream was seen."""
        return b"data: [DONE]" in self.last or b"data:[DONE]" in self.last


async def relay(
    first: bytes,
    content: aiohttp.StreamReader,
    response: Writes,
    stream: Stream,
    *,
    without_usage: bool = False,
    hidden: Callable[[bytes], bytes] = bytes,
) -> None:
    """Pass a stream on until it ends; `first` are its first bytes. `without_usage`: leave out the
    chunk that has only the usage. `hidden`: takes what no client may see out of errors.

    Raises Broken if the engine broke off, ConnectionError if the client left.
    """
    clock = asyncio.get_running_loop().time
    chunk = first
    while chunk:
        if stream.tail:
            chunk = stream.tail + chunk
            stream.tail = b""
        if not chunk.endswith(_END):
            end = _whole_events(chunk)
            if len(chunk) - end > LONGEST_EVENT:
                raise Broken(f"an event has more than {LONGEST_EVENT >> 20} MiB")
            stream.tail = chunk[end:]
            chunk = chunk[:end]
        if chunk:
            stream.last = chunk
            if stream.watched:
                stream.look_at(chunk)
            if _ERROR in chunk:
                chunk = _with_our_errors(hidden(chunk))
            if _USAGE in chunk and not _NO_USAGE.search(chunk):
                stream.usage_chunk = chunk
                if without_usage:
                    chunk = _without_usage(chunk)
            if chunk:
                stream.writing = True
                await response.write(chunk)
                stream.writing = False
        try:
            chunk = await content.readany()
        except (aiohttp.ClientError, OSError) as error:  # a time-out too
            raise Broken(said(error)) from None
        stream.moved = clock()
    if stream.tail and stream.tail.strip() != b"data: [DONE]":
        raise Broken("its last event is incomplete")


async def end(response: Writes, stream: Stream) -> None:
    """End a stream with `[DONE]` if its engine did not: clients wait for it. Raises Broken if the
    answer is incomplete."""
    if stream.done:
        return
    if not (stream.tail or _FINISHED.search(stream.last) or stream.usage_chunk is stream.last):
        raise Broken("its end did not come")
    await response.write(DONE)


def said(error: BaseException) -> str:
    """Return in words why a connection failed."""
    if isinstance(error, TimeoutError):
        return "nothing came for too long"
    return str(error) or type(error).__name__


def _whole_events(chunk: bytes) -> int:
    """Return the position after the last complete event."""
    plain, carriage = chunk.rfind(b"\n\n"), chunk.rfind(b"\r\n\r\n")
    return max(plain + 2 if plain >= 0 else 0, carriage + 4 if carriage >= 0 else 0)


def _with_our_errors(chunk: bytes) -> bytes:
    """Return the events of a chunk, with errors in them as OpenAI's object,
    whatever the engine wrote."""
    events = chunk.split(_END)
    for index, event in enumerate(events):
        if found := _ERROR_EVENT.match(event):
            text = event[found.end() :]
            code = _STATUS.search(text)
            events[index] = b"data: " + of_engine(int(code[1]) if code else 500, text, "").body()
    return _END.join(events)


def _without_usage(chunk: bytes) -> bytes:
    """Return the events of a chunk except those with only usage."""
    events = chunk.split(_END)
    return _END.join(
        event for event in events if not (_USAGE in event and _EMPTY_CHOICES.search(event))
    )


def verdict_on(data: bytes) -> tuple[bool, bool]:
    """Return whether an answer is empty, and whether it was cut at max_tokens."""
    return not _TEXT.search(data), bool(_CUT.search(data))


def usage_in(data: bytes) -> Usage | None:
    """Return the last usage in the bytes of an answer or of its chunks; None if there is none."""
    at = len(data)
    while (at := data.rfind(_USAGE, 0, at)) >= 0:
        text = data[at + len(_USAGE) : at + len(_USAGE) + 4_096].decode("utf-8", "replace").lstrip()
        try:
            found, _ = _DECODER.raw_decode(text.removeprefix(":").lstrip())
        except (ValueError, RecursionError):
            continue
        if isinstance(found, dict):
            return _usage(found)
    return None


def _usage(found: dict[str, Any]) -> Usage:
    """Return the usage, with the names of chat or of /v1/responses."""

    def number(*path: str) -> int:
        value: Any = found
        for step in path:
            value = value.get(step) if isinstance(value, dict) else None
        return max(value, 0) if isinstance(value, int) and not isinstance(value, bool) else 0

    return Usage(
        number("prompt_tokens") or number("input_tokens"),
        number("completion_tokens") or number("output_tokens"),
        number("prompt_tokens_details", "cached_tokens")
        or number("input_tokens_details", "cached_tokens"),
        number("completion_tokens_details", "reasoning_tokens")
        or number("output_tokens_details", "reasoning_tokens"),
    )
