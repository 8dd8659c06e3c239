"""An engine and clients that cost little: streams with the time of writing in every chunk.

Both are bare protocols on uvloop, so that one core carries ten thousand chunks a second of them and
the other core is left to what stands between them. `python -m tests.support.sse_load` serves; its
first line of output is its port.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
from dataclasses import dataclass, field
from typing import Final, cast

import uvloop

_MARK: Final = re.compile(rb"tok (\d{19})")
_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n"
_MODELS: Final = json.dumps(
    {"object": "list", "data": [{"id": "m", "object": "model", "created": 1, "owned_by": "x"}]}
).encode()
PROMPT: Final = "What is known about it? " * 50


def event(now_ns: int) -> bytes:
    """A chunk as vLLM writes it, 210 bytes, with its time in it; framed for HTTP."""
    text = (
        b'data: {"id":"chatcmpl-9a0c6b1fd3a74f3c","object":"chat.completion.chunk",'
        b'"created":1700000000,"model":"m","choices":[{"index":0,"delta":{"content":"tok %019d"},'
        b'"logprobs":null,"finish_reason":null}]}\n\n' % now_ns
    )
    return b"%x\r\n%b\r\n" % (len(text), text)


_LAST: Final = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"


class Upstream(asyncio.Protocol):
    """Streams `max_tokens` chunks, one every `every_ms` (a field of the request)."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.buffer = cast(asyncio.Transport, transport), b""
        self.loop = asyncio.get_running_loop()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            found = re.search(rb"content-length: *(\d+)", head)
            length = int(found[1]) if found else 0
            if len(self.buffer) < end + 4 + length:
                return
            body = self.buffer[end + 4 : end + 4 + length]
            self.buffer = self.buffer[end + 4 + length :]
            self._answer(head, body)

    def _answer(self, head: bytes, body: bytes) -> None:
        asked = json.loads(body) if body.startswith(b"{") else {}
        if not asked.get("stream"):
            text = _MODELS if b"/v1/models" in head.split(b"\r\n")[0] else b'{"status": "ok"}'
            start = _HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(text)
            self.transport.write(start + text)
            return
        self.transport.write(_HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")
        self._next(asked["max_tokens"], asked["every_ms"] / 1000)

    def _next(self, left: int, every_s: float) -> None:
        if self.transport.is_closing():
            return
        if not left:
            self.transport.write(_LAST)
            return
        self.transport.write(event(time.monotonic_ns()))
        self.loop.call_later(every_s, self._next, left - 1, every_s)


@dataclass
class Seen:
    """What clients saw. Times in ms: `first`, from the request to the first chunk; `chunks`, from
    the engine's writing to the client's reading."""

    first: list[float] = field(default_factory=list)
    chunks: list[float] = field(default_factory=list)
    streams: int = 0
    errors: int = 0
    received: int = 0


class StreamClient(asyncio.Protocol):
    """One stream on a connection of its own."""

    def __init__(self, request: bytes, seen: Seen, done: asyncio.Future[None]) -> None:
        self.request, self.seen, self.done = request, seen, done
        self.begun = self.ended = False
        self.first = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.sent_ns = time.monotonic_ns()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        if not self.begun:
            self.begun = True
            if not data.startswith(b"HTTP/1.1 200"):
                self.transport.close()
                return
        if self.first:
            if b"tok " not in data:
                return  # headers alone
            self.first = False
            self.seen.first.append((now - self.sent_ns) / 1e6)
        for mark in _MARK.findall(data):
            self.seen.received += 1
            self.seen.chunks.append((now - int(mark)) / 1e6)
        if b"[DONE]" in data:
            self.ended = True
            self.transport.close()

    def connection_lost(self, error: Exception | None) -> None:
        self.seen.streams += 1
        self.seen.errors += not self.ended
        if not self.done.done():
            self.done.set_result(None)


def request(port: int, chunks: int, every_ms: float) -> bytes:
    """The bytes of one request for a stream, with a prompt of 1.2 kB."""
    body = json.dumps(
        {
            "model": "m",
            "messages": [{"role": "user", "content": PROMPT}],
            "max_tokens": chunks,
            "stream": True,
            "every_ms": every_ms,
        }
    ).encode()
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def stream(port: int, data: bytes, seen: Seen) -> None:
    """One whole stream."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[None] = loop.create_future()
    try:
        await loop.create_connection(lambda: StreamClient(data, seen, done), "127.0.0.1", port)
    except OSError:
        seen.streams += 1
        seen.errors += 1
        return
    await done


async def one_by_one(port: int, count: int) -> Seen:
    """So many short streams, one after the other."""
    seen, data = Seen(), request(port, 2, 1)
    for _ in range(count):
        await stream(port, data, seen)
    return seen


async def arriving(
    port: int, per_s: float, for_s: float, chunks: int, every_ms: float, seen: Seen | None = None
) -> Seen:
    """Streams that come at random times, `per_s` of them a second; all are waited for. What they
    see is added to `seen` while they run."""
    seen, data = seen or Seen(), request(port, chunks, every_ms)
    loop = asyncio.get_running_loop()
    at, end = loop.time(), loop.time() + for_s
    draw = random.Random(7)
    async with asyncio.TaskGroup() as group:
        while (at := at + draw.expovariate(per_s)) < end:
            await asyncio.sleep(max(0.0, at - loop.time()))
            group.create_task(stream(port, data, seen))
    return seen


def serve() -> None:
    """Serve until killed."""

    async def main() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=4096)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(main())


if __name__ == "__main__":
    serve()
