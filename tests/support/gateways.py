"""A gateway in the loop of a test, over engines that run beside it."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from aiohttp import web

from moaa.gateway.app import build
from moaa.gateway.config import parse_config
from moaa.gateway.listener import runner
from moaa.gateway.state import Gateway


@dataclass
class Running:
    """A gateway that listens at `url` (which ends in `/v1`), and a client of it."""

    gateway: Gateway
    url: str
    http: aiohttp.ClientSession

    def post(self, path: str, body: Any, **more: Any):
        """A request; use it with `async with`. `body`: JSON, or the bytes themselves."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return self.http.post(self.url + path, data=io.BytesIO(data), **more)

    def get(self, path: str, **more: Any):
        return self.http.get(self.url + path, **more)


@asynccontextmanager
async def gateway_of(config: dict[str, Any], *, checks: bool = False) -> AsyncIterator[Running]:
    """A gateway with this configuration; anonymous clients may ask unless it says who may.
    `checks`: whether replicas are asked at first."""
    given = config if {"keys", "keys_file", "anonymous"} & set(config) else {"anonymous": True}
    gateway = Gateway(parse_config(json.dumps({**config, **given}), "gateway.yaml"))
    async with gateway:
        if checks:
            await gateway.checks.first()
        site = runner(build(gateway))
        await site.setup()
        await web.TCPSite(site, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{site.addresses[0][1]}/v1"
        try:
            async with aiohttp.ClientSession() as http:
                yield Running(gateway, url, http)
        finally:
            await site.cleanup()


def of(*engines: Any, **more: Any) -> dict[str, Any]:
    """A configuration with the model `m` behind these engines."""
    return {"models": {"m": {"endpoints": [each.url for each in engines], **more}}}


def ask(text: str = "Hello", **more: Any) -> dict[str, Any]:
    """The body of a chat request to the model `m`."""
    return {"model": "m", "messages": [{"role": "user", "content": text}], "max_tokens": 8, **more}


async def drains(http: aiohttp.ClientSession, url: str) -> None:
    """Wait until the gateway at `url` has taken note of a signal: some time after it was sent."""
    for _ in range(1500):
        async with http.get(f"{url}/health") as health:
            if (await health.json())["status"] == "draining":
                assert health.status == 503
                return
        await asyncio.sleep(0.02)
    raise AssertionError("the gateway does not drain")
