"""What tests of the chat client share."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager

from moaa.chat.client import Client, Timing
from moaa.chat.health import Rests
from moaa.chat.message import Call
from moaa.chat.pool import Endpoint
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls, Sampling

QUICK = Timing(backoff_s=0.01, rests=Rests(0.01), probe_every_s=0.01)


@asynccontextmanager
async def client_of(*urls: str, key: str | None = None, timing: Timing = QUICK, **calls):
    async with Client(Calls(**{"retries": 2, "timeout_s": 5, **calls}), Ledger(), timing) as client:
        for url in urls:
            client.pool("m").add(Endpoint(url, "m", key))
        yield client


def call(word: str = "Hello", **fields) -> Call:
    sampling = fields.pop("sampling", Sampling(max_tokens=16))
    return Call("m", ({"role": "user", "content": word},), sampling, **fields)


def use(client: Client):
    return client._ledger.model("m")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def listens(port: int) -> bool:
    """Whether something on this machine listens on the port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
