"""An engine that streams, and notices when its client leaves. It fails as it is told to.

    with StreamingEngine("smol", every_s=0.01) as engine:
        engine.breaks_after = 3          # streams break (RST) after three chunks
        ...
        assert engine.left == 1          # one client left before the end of its answer

`python -m tests.support.streaming_engine PORT MODEL…` serves until it is killed.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
import time
from typing import Any

from aiohttp import web

from tests.support.engine_answers import Body, answer
from tests.support.engine_server import EngineServer, reset


class StreamingEngine(EngineServer):
    """`words`: how many chunks with text a stream has; `every_s`: the time before each of them;
    `silent_s`: before the headers."""

    def __init__(
        self,
        *models: str,
        words: int = 8,
        every_s: float = 0.0,
        silent_s: float = 0.0,
        port: int = 0,
        **more: Any,
    ) -> None:
        super().__init__(*models, port=port, **more)
        self.words, self.every_s, self.silent_s = words, every_s, silent_s
        self.breaks_after: int | None = None
        self.stands_at: int | None = None
        """Streams stand still before this chunk."""
        self.half_an_event = False
        """Whether a stream that breaks does so within an event."""
        self.ends_without_done = False
        self.finishes = True
        """Whether the last chunk with text has a finish_reason."""
        self.pads = 0
        """So many more bytes in each chunk."""
        self.raw: list[bytes] = []
        """The bodies of all requests, as they came."""
        self.seen: list[dict[str, str]] = []
        """The headers of all requests, their names in small letters."""
        self.left = 0
        """Requests whose client left before the end of the answer."""
        self.left_at = 0.0
        self.written = 0
        """Bytes of streams that were written."""
        self.streaming = 0
        """Streams in progress."""

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20, handler_args={"handler_cancellation": True})
        for path in ("chat/completions", "completions", "responses", "embeddings"):
            app.router.add_post(f"/v1/{path}", self._any)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        return app

    async def _any(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        body = json.loads(raw)
        if self.answers_probes and body.get("max_tokens") == 1:
            return web.json_response(answer(body))
        self.raw.append(raw)
        self.seen.append({name.lower(): value for name, value in request.headers.items()})
        try:
            if request.path == "/v1/embeddings":
                return web.json_response(embeddings(body))
            if not body.get("stream"):
                await asyncio.sleep(self.silent_s)
                if request.path == "/v1/responses":
                    return web.json_response(_response(body, "hello"))
                body.setdefault("messages", [])
                body.setdefault("max_tokens", 8)
                return await self._chat(request)
            await asyncio.sleep(self.silent_s)
            return await self._stream(request, body)
        except (asyncio.CancelledError, ConnectionError):
            self.left += 1
            self.left_at = time.monotonic()
            raise

    async def _stream(self, request: web.Request, body: Body) -> web.StreamResponse:
        self.requests.append(body)
        for model in (body["model"], None):
            if self._faults.get(model):
                answered = await self._faults[model].popleft()(request, body)
                if answered is not None:
                    return answered
                break
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        self.streaming += 1
        try:
            for number in range(self.words):
                if number == self.breaks_after:
                    return await self._break(request, response)
                if number == self.stands_at:
                    await asyncio.sleep(3600)
                if self.every_s:
                    await asyncio.sleep(self.every_s)
                await self._event(response, self._chunk(request.path, body, number))
            if request.path == "/v1/responses":
                await self._event(response, _response(body, "done"))
                return response
            if (body.get("stream_options") or {}).get("include_usage"):
                usage = {"prompt_tokens": 5, "completion_tokens": self.words}
                usage["total_tokens"] = sum(usage.values())
                await self._event(response, {**_head(body), "choices": [], "usage": usage})
            if not self.ends_without_done:
                await response.write(b"data: [DONE]\n\n")
            return response
        finally:
            self.streaming -= 1

    async def _break(
        self, request: web.Request, response: web.StreamResponse
    ) -> web.StreamResponse:
        if self.half_an_event:
            await response.write(b'data: {"id": "chatcmpl-1", "cho')
            await asyncio.sleep(0.02)
        await reset()(request, {})
        return response

    def _chunk(self, path: str, body: Body, number: int) -> Body:
        text = f"w{number} " + "." * self.pads
        last = number == self.words - 1
        if path == "/v1/responses":
            return {"type": "response.output_text.delta", "sequence_number": number, "delta": text}
        if path == "/v1/completions":
            choice: Body = {"index": 0, "text": text}
        else:
            choice = {"index": 0, "delta": {"role": "assistant", "content": text}}
        choice["finish_reason"] = "stop" if last and self.finishes else None
        return {**_head(body), "choices": [choice]}

    async def _event(self, response: web.StreamResponse, data: Body) -> None:
        event = f"data: {json.dumps(data)}\n\n".encode()
        await response.write(event)
        self.written += len(event)


def embeddings(body: Body) -> Body:
    """Two numbers for each input."""
    given = body["input"] if isinstance(body["input"], list) else [body["input"]]
    data = [
        {"object": "embedding", "index": index, "embedding": [0.5, float(len(str(each)))]}
        for index, each in enumerate(given)
    ]
    usage = {"prompt_tokens": len(given), "total_tokens": len(given)}
    return {"object": "list", "data": data, "model": body["model"], "usage": usage}


def _head(body: Body) -> Body:
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": body["model"],
    }


def _response(body: Body, text: str) -> Body:
    return {"id": "resp_1", "object": "response", "model": body["model"], "output_text": text}


if __name__ == "__main__":
    with StreamingEngine(*sys.argv[2:], port=int(sys.argv[1]), every_s=0.02, words=500):
        threading.Event().wait()
