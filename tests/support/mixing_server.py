"""A gateway with a mixture over real connections: its engines run in the test's own loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from moaa.gateway.state import Gateway
from tests.support.gateways import gateway_of
from tests.support.mixing import Says, Script

MIXTURE: dict[str, Any] = {
    "proposers": [{"model": "m1"}, {"model": "m2"}, {"model": "m3"}],
    "aggregator": {"model": "agg"},
}


@dataclass
class Mixing:
    """A running gateway. `script` says what its models answer; `url` ends in /v1."""

    script: Script
    gateway: Gateway
    url: str


@asynccontextmanager
async def mixing(script: Script, **config: Any) -> AsyncIterator[Mixing]:
    """A gateway over an engine for each model of the script, with the mixture `mix`."""
    async with AsyncExitStack() as stack:
        urls = {name: await _served(stack, _engine(script)) for name in script.models}
        models = {name: {"endpoints": [f"{url}/v1"]} for name, url in urls.items()}
        for name, more in config.pop("models", {}).items():
            models[name] |= more
        given = {"models": models, "mixtures": {"mix": MIXTURE}, **config}
        running = await stack.enter_async_context(gateway_of(given))
        yield Mixing(script, running.gateway, running.url)


async def _served(stack: AsyncExitStack, app: web.Application) -> str:
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    stack.push_async_callback(runner.cleanup)
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return f"http://127.0.0.1:{runner.addresses[0][1]}"


def _engine(script: Script) -> web.Application:
    """An engine that streams, and whose work ends when its client leaves, as vLLM's does."""

    async def chat(request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await request.json()
        model = body.pop("model")
        says: Says = script.models[model]
        if says.error is not None:
            await asyncio.sleep(says.after_s)
            script.calls.append((model, body))
            return web.json_response(says.error.to_json(), status=says.error.status)
        if not body.get("stream"):
            return web.Response(body=await script.whole(model, body))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            async for data in script.chunks(model, body):
                await response.write(b"data: " + data + b"\n\n")
        except Exception:  # it was told to break off
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application(handler_args={"handler_cancellation": True})
    app.router.add_post("/v1/chat/completions", chat)
    return app
