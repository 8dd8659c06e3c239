"""A small server that speaks vLLM's chat protocol and fails as it is told to. It runs in a thread
of its own.

    with EngineServer("a", "b") as server:
        server.fail(status(500), reset(), model="a")     # the next two requests for a
        ...                                              # ask at server.url
        assert server.count == 3

The answer depends on the request alone, so two runs can be compared. `python -m
tests.support.engine_server PORT MODEL…` serves until it is killed, for tests that kill what asks.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
import sys
import threading
from collections import Counter, deque
from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp import web

from tests.support.engine_answers import Body, answer, pooled
from tests.support.serving import Served

Fault = Callable[[web.Request, Body], Awaitable[web.StreamResponse | None]]
"""Answers instead of the server, or does something first and returns None."""


CONTEXT_ERROR = {
    "message": "This model's maximum context length is 4096 tokens. However, your prompt contains "
    "5000 input tokens, which "
    "exceeds this limit even without any output tokens. Please reduce the length of the input "
    "prompt.",
    "type": "BadRequestError",
    "param": "input_tokens",
    "code": 400,
}


def status(
    code: int, message: str = "as told", /, *, retry_after: float | str | None = None, **error: Any
) -> Fault:
    """An error in vLLM's shape; `error` goes into its body."""

    async def fault(request: web.Request, body: Body) -> web.StreamResponse:
        return _error(
            code, message, {} if retry_after is None else {"Retry-After": str(retry_after)}, **error
        )

    return fault


def _error(
    code: int, message: str, headers: dict[str, str] | None = None, /, **error: Any
) -> web.StreamResponse:
    return web.json_response(
        {"error": {"message": message, "code": code, **error}}, status=code, headers=headers
    )


def context_length() -> Fault:
    """vLLM's refusal of a prompt that is too long."""
    return text(json.dumps({"error": CONTEXT_ERROR}), 400)


def text(body_text: str, code: int = 200) -> Fault:
    """This body, whatever it is: empty, cut JSON, HTML."""

    async def fault(request: web.Request, body: Body) -> web.StreamResponse:
        return web.Response(text=body_text, status=code, content_type="application/json")

    return fault


def slow(seconds: float) -> Fault:
    """The right answer, later. `slow(3600)` hangs."""

    async def fault(request: web.Request, body: Body) -> None:
        await asyncio.sleep(seconds)

    return fault


def reset() -> Fault:
    """The connection breaks (RST) instead of an answer."""

    async def fault(request: web.Request, body: Body) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
        request.transport.abort()
        return web.Response()

    return fault


class EngineServer(Served):
    """Serves `models` while in context. `key`: requests without this bearer key get 401. `delay_s`:
    every answer's time."""

    def __init__(
        self, *models: str, key: str | None = None, delay_s: float = 0.0, port: int = 0
    ) -> None:
        super().__init__(port)
        self.models = models
        self.key = key
        self.delay_s = delay_s
        self.refuse: Callable[[Body], bool] = lambda body: False
        """Requests of which this is true get 400, again and again."""
        self.refusal = "refused, as told"
        self.say: Callable[[Body], str | None] = lambda body: None
        """The text of the answers to such requests; None: one of the server's own."""
        self.begins = ""
        """What each answer of the server's own begins with."""
        self.ends: Callable[[Body], str] | None = None
        """The finish reason of the answers to such requests."""
        self.answers_probes = False
        """Whether requests for one token are answered whatever the faults, and not counted."""
        self.metrics: str | None = None
        """The text at /metrics; None: 404."""
        self.looks: list[dict[str, str]] = []
        """The headers of the requests for /metrics."""
        self.requests: list[Body] = []
        self.pooled: list[tuple[str, Body]] = []
        """The requests for scores and vectors, each with its path."""
        self.at_once = 0
        """The most requests that were in flight at the same time."""
        self._in_flight = 0
        self._faults: dict[str | None, deque[Fault]] = {}

    def fail(self, *faults: Fault, model: str | None = None, times: int = 1) -> None:
        """The next requests (for this model) meet these faults, one each."""
        self._faults.setdefault(model, deque()).extend(faults * times)

    def heal(self) -> None:
        """Forget the faults that nobody has met yet."""
        self._faults.clear()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def count(self) -> int:
        return len(self.requests)

    @property
    def counts(self) -> Counter[str]:
        """Requests by model."""
        return Counter(request["model"] for request in self.requests)

    def app(self) -> web.Application:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_post("/v1/chat/completions", self._chat)
        app.router.add_post("/classify", self._pooled)
        app.router.add_post("/pooling", self._pooled)
        app.router.add_get("/v1/models", self._models)
        app.router.add_get("/health", self._health)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _health(self, request: web.Request) -> web.StreamResponse:
        return web.Response()

    async def _metrics(self, request: web.Request) -> web.StreamResponse:
        self.looks.append(dict(request.headers))
        if self.metrics is None:
            return web.Response(status=404)
        return web.Response(text=self.metrics)

    async def _models(self, request: web.Request) -> web.StreamResponse:
        return web.json_response(
            {"object": "list", "data": [{"id": model, "object": "model"} for model in self.models]}
        )

    async def _pooled(self, request: web.Request) -> web.StreamResponse:
        """A score or a vector, in vLLM's shape: functions of the conversation."""
        body = await request.json()
        self.pooled.append((request.path, body))
        if self.refuse(body):
            return web.json_response({"error": CONTEXT_ERROR}, status=400)
        if body["model"] not in self.models:
            return _error(404, f"The model `{body['model']}` does not exist.")
        return web.json_response(pooled(request.path, body))

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        if self.answers_probes and body.get("max_tokens") == 1:
            return web.json_response(answer(body))
        self.requests.append(body)
        self._in_flight += 1
        self.at_once = max(self.at_once, self._in_flight)
        try:
            for model in (body["model"], None):
                if self._faults.get(model):
                    answered = await self._faults[model].popleft()(request, body)
                    if answered is not None:
                        return answered
                    break
            if self.refuse(body):
                return _error(400, self.refusal)
            if self.key and request.headers.get("Authorization") != f"Bearer {self.key}":
                return _error(401, f"Incorrect API key: {request.headers.get('Authorization')}")
            if body["model"] not in self.models:
                return _error(
                    404, f"The model `{body['model']}` does not exist.", type="NotFoundError"
                )
            await asyncio.sleep(self.delay_s)
            return web.json_response(self._as_told(body))
        finally:
            self._in_flight -= 1

    def _as_told(self, body: Body) -> Body:
        found = answer(body)
        said = self.say(body)
        for choice in found["choices"]:
            message = choice["message"]
            message["content"] = f"{self.begins}{message['content']}"
            if said is not None:
                message["content"], choice["logprobs"] = said, None
            if self.ends:
                choice["finish_reason"] = self.ends(body)
        return found


if __name__ == "__main__":
    with EngineServer(*sys.argv[2:], port=int(sys.argv[1])):
        threading.Event().wait()
