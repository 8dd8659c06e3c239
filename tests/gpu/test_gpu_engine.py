"""The engine on the GPU: our command line starts vLLM on a random model, and it writes tokens."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from moaa.engines import cores
from moaa.engines.server import Server, Spec
from moaa.recipe.schema import Engines, Model
from tests.gpu.conftest import LIMIT_S, MakeModel
from tests.gpu.machine import device, watched_memory
from tests.gpu.results import Results
from tests.gpu.shapes import Shape

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("vllm") is None, reason="vLLM is not installed"
)


async def test_engine(model: MakeModel, shape: Shape, results: Results, tmp_path: Path) -> None:
    at_once, tokens = (256, 256) if device() == "cuda" else (4, 16)
    served = Model(source=model(shape), max_model_len=shape.context)
    devices = ("0",) if device() == "cuda" else tuple(map(str, cores.available()))
    kind: Any = device()
    spec = Spec("random", served.source, served, Engines(max_num_seqs=at_once), kind, devices)
    begin = time.monotonic()
    with watched_memory() as peak:
        server = await Server.launch(spec, tmp_path / "engine.log")
        try:
            await asyncio.wait_for(ready(server), LIMIT_S - 60)
            start_s = time.monotonic() - begin
            await asyncio.to_thread(ask, server.url, at_once, 8)  # not measured: the first answers
            begin = time.monotonic()
            written = await asyncio.to_thread(ask, server.url, at_once, tokens)
            seconds = time.monotonic() - begin
        finally:
            await server.stop()
    assert written == at_once * tokens
    results.add(
        f"engine {shape.name}",
        {
            "tokens_per_s": round(written / seconds, 1),
            "peak_memory_gib": peak.gib,
            "model": shape.name,
            "calls_at_once": at_once,
            "tokens_a_call": tokens,
            "start_s": round(start_s, 1),
        },
    )


async def ready(server: Server) -> None:
    """Return when the server answers. Raises EngineError, with the end of its log, if it ends."""

    async def answers() -> None:
        while True:
            try:
                await asyncio.to_thread(ask, server.url, 1, 1)
                return
            except OSError:
                await asyncio.sleep(0.5)

    await server.ready(answers())


def ask(url: str, calls: int, tokens: int) -> int:
    """Ask `calls` times at once for `tokens` tokens each. Returns how many were written."""

    def call(number: int) -> int:
        body = {
            "model": "random",
            "messages": [{"role": "user", "content": f"Write about the number {number}."}],
            "max_tokens": tokens,
            "ignore_eos": True,
            "seed": number,
        }
        request = urllib.request.Request(
            f"{url}/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=LIMIT_S) as answer:
            return int(json.load(answer)["usage"]["completion_tokens"])

    with ThreadPoolExecutor(calls) as pool:
        return sum(pool.map(call, range(calls)))
