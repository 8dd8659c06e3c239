"""A client, and a server in the same loop that does as a test says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from moaa.chat.client import Client
from moaa.chat.message import Reply
from moaa.chat.pool import Endpoint
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls
from tests.support.clients import call
from tests.support.engine_answers import answer

TIMEOUT_S = 600.0


Body = dict[str, Any]


Answer = Callable[[Body, int], Awaitable[web.StreamResponse | None]]
"""What a server does with a request and its number; None: answer it."""


def now() -> float:
    return asyncio.get_running_loop().time()


def is_probe(body: Body) -> bool:
    return bool(body["max_tokens"] == 1)


class Bench:
    """A client, and a server in the same loop that does as `behave` says."""

    def __init__(self, client: Client, ledger: Ledger, url: str, bodies: list[Body]) -> None:
        self.client, self.ledger, self.bodies = client, ledger, bodies
        self.pool = client.pool("m")
        self.url = url

    async def ask(self, *words: str) -> list[Reply | BaseException]:
        """The outcome of a call with each of these words, all at the same time."""
        calls = (self.client.send(call(word)) for word in words)
        return await asyncio.gather(*calls, return_exceptions=True)


@asynccontextmanager
async def bench(behave: Answer, *, kept: bool = False, **calls: Any) -> AsyncIterator[Bench]:
    bodies: list[Body] = []

    async def chat(request: web.Request) -> web.StreamResponse:
        body = await request.json()
        bodies.append(body)
        return await behave(body, len(bodies)) or web.json_response(answer(body))

    app = web.Application()
    app.router.add_post("/v1/chat/completions", chat)
    ledger = Ledger()
    async with (
        TestServer(app) as server,
        Client(Calls(timeout_s=TIMEOUT_S, **calls), ledger) as client,
    ):
        made = Bench(client, ledger, str(server.make_url("/v1")), bodies)
        made.pool.add(Endpoint(made.url, "m", kept=kept))
        yield made
    await asyncio.sleep(1)  # until the server's connections are closed


def words(n: int) -> list[str]:
    return [f"word {number}" for number in range(n)]


async def refuse(
    body: Body, status: int, message: str = "as told", after_s: float | None = None
) -> web.StreamResponse:
    return web.json_response(
        {"error": {"message": message, "code": status}},
        status=status,
        headers={} if after_s is None else {"Retry-After": f"{after_s:g}"},
    )
