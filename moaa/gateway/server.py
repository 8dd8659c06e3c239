"""The process of a gateway: its event loop, its ports, and how it stops.

The garbage collector causes the slowest requests: with Python's defaults it walks over all objects
several times a second. Here the objects of the start are left out, and the others are checked
rarely.
"""

from __future__ import annotations

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any, Final

from aiohttp import web

from moaa.errors import RecipeError
from moaa.gateway.app import CATALOGUE, build, metrics_app
from moaa.gateway.config import GatewayConfig
from moaa.gateway.listener import runner
from moaa.gateway.state import Gateway
from moaa.progress.messages import log, say

BACKLOG: Final = 4096
THRESHOLDS: Final = (200_000, 50, 1_000)
AGAIN_S: Final = 5.0


def tune_collector() -> None:
    """Make pauses of the garbage collector rare and short."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*THRESHOLDS)


def run(config: GatewayConfig) -> None:
    """Serve until SIGTERM or Ctrl-C. Answers in progress may end; a second signal cuts them off."""
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve(config))


async def serve(config: GatewayConfig) -> None:
    """Serve until the process gets SIGTERM or SIGINT."""
    stop, now = asyncio.Event(), asyncio.Event()

    def signalled() -> None:
        (now if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, signalled)
    async with Gateway(config) as gateway:
        background = [asyncio.create_task(_kept_up(work)) for work in gateway.background()]
        app = build(gateway)
        serving = runner(app)
        metrics = web.AppRunner(metrics_app(gateway), access_log=None, shutdown_timeout=0.1)
        try:
            # First: who sees that it serves may read its metrics.
            if config.metrics_port is not None:
                await _listen(metrics, config.host, config.metrics_port, "metrics_port")
            url = await _listen(serving, config.host, config.port, "port")
            await gateway.checks.first()
            names = ", ".join(model.name for model in app[CATALOGUE])
            say(f"gateway: {url}/v1 serves {names}")
            tune_collector()
            await stop.wait()
            await _drain(gateway, now)
        finally:
            await serving.cleanup()
            await metrics.cleanup()
            for task in background:
                task.cancel()
            await asyncio.gather(*background, return_exceptions=True)


async def _kept_up(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Run something in the background until cancelled.
    A bug in it does not break client requests."""
    while True:
        try:
            return await work()
        except Exception:
            log.exception("internal error; the gateway keeps running")
        await asyncio.sleep(AGAIN_S)


async def _listen(site: web.AppRunner, host: str, port: int, field: str) -> str:
    """Open a port; return its address. Raises RecipeError if the port cannot be opened."""
    await site.setup()
    try:
        await web.TCPSite(site, host, port, backlog=BACKLOG).start()
    except OSError as error:
        raise RecipeError(
            f"{field} {port} of {host} cannot be opened: {error.strerror or error}. Stop the "
            f"program that uses it, or set another `{field}` (or `host`)."
        ) from None
    address = site.addresses[0]
    shown = f"[{address[0]}]" if ":" in address[0] else address[0]
    return f"http://{shown}:{address[1]}"


async def _drain(gateway: Gateway, now: asyncio.Event) -> None:
    """Accept no more requests, and let those in progress end."""
    gateway.draining = True
    if gateway.requests:
        say(f"gateway: {len(gateway.requests)} requests are in progress; it stops after them")
    ended = asyncio.create_task(gateway.idle.wait())
    cut = asyncio.create_task(now.wait())
    try:
        await asyncio.wait(
            (ended, cut),
            timeout=gateway.config.times.drain_s,
            return_when=asyncio.FIRST_COMPLETED,
        )
    finally:
        ended.cancel()
        cut.cancel()
