"""Asks replicas in doubt until they answer again, and idle replicas from time to time.

Only an answer shows that a server works: a replica in doubt is asked for one token. An idle replica
is asked for its list of models, which costs nothing.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Final

import aiohttp

from moaa.gateway.backend import Backend, Replica
from moaa.progress.messages import log, say

FIRST_REST_S: Final = 0.25
LONGEST_REST_S: Final = 5.0
LOOK_EVERY_S: Final = 5.0
IDLE_S: Final = 20.0
"""After this many seconds without an answer a replica is asked for its models."""
PROBE_TIMEOUT_S: Final = 30.0
LOOK_TIMEOUT_S: Final = 5.0


class Checks:
    """The checks of one gateway, at most one for each replica."""

    def __init__(
        self, backends: Mapping[str, Backend], http: Callable[[], aiohttp.ClientSession]
    ) -> None:
        self._backends, self._http = backends, http
        self._running: dict[Replica, asyncio.Task[None]] = {}

    def check(self, backend: Backend, replica: Replica) -> None:
        """Ask a replica in doubt until it answers or is removed."""
        if replica not in self._running and replica in backend.replicas.values():
            task = asyncio.create_task(self._check(backend, replica), name=f"check {replica.url}")
            self._running[replica] = task
            task.add_done_callback(lambda _: self._running.pop(replica, None))

    async def first(self) -> None:
        """Ask every replica once: a replica is ready only after it has answered."""
        for backend in self._backends.values():
            for replica in backend.replicas.values():
                backend.failed(replica)
                self.check(backend, replica)

    async def watch(self) -> None:
        """Check idle replicas until cancelled."""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            now = asyncio.get_running_loop().time()
            for backend in list(self._backends.values()):
                for replica in list(backend.replicas.values()):
                    if replica.endpoint.in_doubt:
                        self.check(backend, replica)
                    elif now - replica.endpoint.answered_at > IDLE_S:
                        await self._look(backend, replica)

    async def close(self) -> None:
        """Stop all checks."""
        running = list(self._running.values())
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _check(self, backend: Backend, replica: Replica) -> None:
        rest_s, told = FIRST_REST_S, False
        while replica.endpoint.in_doubt and backend.replicas.get(replica.url) is replica:
            why = await self._why_not(backend, replica)
            if why is None:
                backend.answered(replica)
                if told:
                    say(f"model '{backend.name}': {replica.endpoint.shown} answers")
                return
            if not told:
                told = True
                log.warning(
                    f"model '{backend.name}': {replica.endpoint.shown} does not answer ({why}). It "
                    "will be asked until it answers"
                )
            await asyncio.sleep(rest_s)
            rest_s = min(LONGEST_REST_S, rest_s * 2)

    async def _why_not(self, backend: Backend, replica: Replica) -> str | None:
        """Ask for one token. Return why the server did not answer; None if it did."""
        body = {
            "model": backend.served_name,
            "messages": [{"role": "user", "content": "Hello"}],
            "max_tokens": 1,
        }
        try:
            async with self._http().post(
                replica.at("/chat/completions"),
                data=json.dumps(body).encode(),
                headers={"Content-Type": "application/json", **replica.headers},
                proxy=replica.proxy,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=PROBE_TIMEOUT_S, sock_connect=LOOK_TIMEOUT_S),
            ) as response:
                # 4xx: it serves no chat (embeddings), or wants other fields: it is up.
                return f"HTTP {response.status}" if response.status >= 500 else None
        except (aiohttp.ClientError, OSError) as error:
            return str(error) or type(error).__name__

    async def _look(self, backend: Backend, replica: Replica) -> None:
        try:
            async with self._http().get(
                replica.at("/models"),
                headers=replica.headers,
                proxy=replica.proxy,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=LOOK_TIMEOUT_S),
            ):
                backend.answered(replica)
        except (aiohttp.ClientError, OSError):
            backend.failed(replica)
            self.check(backend, replica)
