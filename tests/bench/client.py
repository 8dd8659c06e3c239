"""Calls a second and CPU time a call of the chat client, beside the `openai` client, against a
server that takes no time.

    python -m tests.bench.client [--calls 20000] [--concurrency 64]

The client has one core to itself, the server another. Every call has a prompt of its own (1.3 kB)
and gets vLLM's answer of 600 characters. CPU time is that of the client's process, all its threads:
calls/s a core = 1 / it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import uvloop

from moaa import mixture
from moaa.asking import Session, ask_all
from moaa.chat.client import Client
from moaa.chat.message import Call, Message
from moaa.chat.pool import Endpoint
from moaa.journal import S3Journal
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Calls, Member, Mixture, Model, Runtime, Sampling
from tests.support.memory_store import MemoryStore

ANSWER = json.dumps(
    {
        "id": "chatcmpl-9a",
        "object": "chat.completion",
        "created": 1700000000,
        "model": "m",
        "choices": [
            {
                "index": 0,
                "message": {
                    "role": "assistant",
                    "content": "word " * 120,
                    "refusal": None,
                    "annotations": None,
                    "audio": None,
                    "function_call": None,
                    "tool_calls": [],
                    "reasoning": None,
                },
                "logprobs": None,
                "finish_reason": "stop",
                "stop_reason": None,
                "token_ids": None,
            }
        ],
        "service_tier": None,
        "system_fingerprint": None,
        "usage": {
            "prompt_tokens": 300,
            "total_tokens": 420,
            "completion_tokens": 120,
            "prompt_tokens_details": None,
        },
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "kv_transfer_params": None,
    }
).encode()
RESPONSE = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%b" % (
    len(ANSWER),
    ANSWER,
)
SAMPLING = Sampling(max_tokens=512)


class _Null(asyncio.Protocol):
    """Answers every request as soon as its last byte is there."""

    def connection_made(self, transport) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            length = int(head[head.index(b"content-length:") + 15 :].split(b"\r\n", 1)[0])
            if len(self.buffer) < end + 4 + length:
                return
            self.buffer = self.buffer[end + 4 + length :]
            self.transport.write(RESPONSE)


def serve(core: int) -> None:
    os.sched_setaffinity(0, {core})

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(_Null, "127.0.0.1", 0)
        print(server.sockets[0].getsockname()[1], flush=True)
        await server.serve_forever()

    uvloop.run(main())


def prompt(number: int) -> tuple[Message, ...]:
    system = Message(role="system", content="You answer questions. " * 40)
    return system, Message(
        role="user", content=f"Question {number}: " + "what is known about it? " * 17
    )


async def at_once(calls: int, concurrency: int, call: Callable[[int], Awaitable[object]]) -> None:
    numbers = iter(range(calls))

    async def worker() -> None:
        for number in numbers:
            await call(number)

    await asyncio.gather(*(worker() for _ in range(concurrency)))


def ours(url: str, calls: int, concurrency: int) -> None:
    async def main() -> None:
        async with Client(Calls(in_flight=concurrency), Ledger()) as client:
            client.pool("m").add(Endpoint(url, "m"))
            await at_once(
                calls, concurrency, lambda number: client.send(Call("m", prompt(number), SAMPLING))
            )

    uvloop.run(main())


def openai(url: str, calls: int, concurrency: int) -> None:
    from openai import AsyncOpenAI

    async def main() -> None:
        async with AsyncOpenAI(base_url=url, api_key="none", max_retries=0) as client:
            await at_once(
                calls,
                concurrency,
                lambda number: client.chat.completions.create(
                    model="m",
                    messages=cast(Any, list(prompt(number))),
                    temperature=SAMPLING.temperature,
                    top_p=SAMPLING.top_p,
                    max_tokens=SAMPLING.max_tokens,
                ),
            )

    uvloop.run(main())


def asking(url: str, calls: int, concurrency: int) -> None:
    """The whole path of a stage: keys, journal (to memory), schedule, client; one call a
    conversation."""

    async def work(number: int, ask) -> dict:
        return {"said": (await ask("m", prompt(number), SAMPLING)).text}

    _ask_all(url, calls, concurrency, work)


def asking_mixtures(url: str, calls: int, concurrency: int) -> None:
    """The same with `mixture.respond`: three proposers and an aggregator, four calls a
    conversation."""
    members = [
        Member(model="m", name=name, system=f"Be {name}.", sampling=SAMPLING)
        for name in ("brief", "exact", "kind", "wise")
    ]
    four = Mixture(proposers=tuple(members[:3]), aggregator=members[3])

    async def work(number: int, ask) -> dict:
        return (await mixture.respond(four, prompt(number), ask)).to_json()

    _ask_all(url, calls // 4, concurrency, work)


def _ask_all(url: str, conversations: int, concurrency: int, work) -> None:
    @asynccontextmanager
    async def start(session, client):
        client.pool("m").add(Endpoint(url, "m"))
        yield Up()

    class Up:
        capacity = None

        async def up(self, models) -> None: ...
        async def down(self, models) -> None: ...

    store, ledger = MemoryStore(), Ledger()
    journal = S3Journal(store, f"{store.root}/journal")
    journal.open()
    session = Session(
        models={"m": Model(source="m")},
        runtime=Runtime(calls=Calls(in_flight=concurrency, window=concurrency)),
        store=store,
        ledger=ledger,
        progress=Progress.silent(),
        start_fleet=start,
    )
    ask_all({str(number): number for number in range(conversations)}, work, session, journal)
    journal.close()
    assert len(journal.finished) == conversations


def measure(
    name: str, path: Callable[[str, int, int], None], url: str, calls: int, concurrency: int
) -> str:
    path(url, 400, concurrency)  # imports and first connections are not what is measured
    wall, cpu = time.perf_counter(), time.process_time()
    path(url, calls, concurrency)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    rates = f"{calls / wall:>11,.0f}{cpu / calls * 1e6:>13,.0f}{calls / cpu:>13,.0f}"
    return f"{name:<44}{calls:>8}{rates}"


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--calls", type=int, default=20_000)
    options.add_argument("--concurrency", type=int, default=64)
    options.add_argument("--serve", type=int, metavar="CORE")
    given = options.parse_args()
    if given.serve is not None:
        serve(given.serve)
    cores = sorted(os.sched_getaffinity(0))
    server = subprocess.Popen(
        [sys.executable, "-m", "tests.bench.client", "--serve", str(cores[-1])],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        url = f"http://127.0.0.1:{server.stdout.readline().strip()}/v1"
        os.sched_setaffinity(0, {cores[0]})
        print(
            f"{_cpu()}, {len(cores)} cores, load {os.getloadavg()[0]:.1f}, Python "
            f"{platform.python_version()}, commit {_commit()}"
        )
        print(f"{'path':<44}{'calls':>8}{'calls/s':>11}{'CPU us/call':>13}{'calls/s/core':>13}")
        for name, path, calls in (
            ("Client.send", ours, given.calls),
            ("ask_all (key, journal, schedule, send)", asking, given.calls),
            ("ask_all of mixtures (3 proposers + aggregator)", asking_mixtures, given.calls),
            ("openai AsyncOpenAI", openai, given.calls // 5),
        ):
            print(measure(name, path, url, calls, given.concurrency), flush=True)
    finally:
        server.terminate()
        server.wait()


def _cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(
        (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")),
        platform.machine(),
    )


def _commit() -> str:
    return (
        subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        or "unknown"
    )


if __name__ == "__main__":
    main()
