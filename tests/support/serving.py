"""An aiohttp server in a thread of its own, for as long as a `with` lasts."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import Self

from aiohttp import web


class Served:
    """A subclass gives the routes in `app`; `port` is known once the context is entered."""

    def __init__(self, port: int = 0) -> None:
        self.port = port
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def app(self) -> web.Application:
        raise NotImplementedError

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._started.wait(30), "the test server did not start"
        return self

    def __exit__(self, *exc: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        runner = web.AppRunner(self.app(), access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        listening = socket.create_server(("127.0.0.1", self.port), backlog=128)
        await web.SockSite(runner, listening).start()
        self.port = runner.addresses[0][1]
        self._started.set()
        await self._stop.wait()
        # asyncio forgets to close a connection that it accepts while its server is closed.
        self._loop.remove_reader(listening)
        for _ in range(3):
            await asyncio.sleep(0)
        await runner.cleanup()
