"""A fleet on this machine, of vLLMs that only pretend."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moaa import engines
from moaa.chat.client import Client
from moaa.engines import cores, devices
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Calls, Engines, Model, Runtime
from tests.support.leasing import Bench
from tests.support.paths import ROOT
from tests.support.sessions import session_of


def pretended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Return a folder that looks like a model, for the fake vLLM and two cores of its own."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests/support/fake_vllm'}{os.pathsep}{ROOT}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cores, "available", lambda: [0, 1])
    monkeypatch.setattr(devices, "hardware", lambda: devices.Hardware("cpu", ("0", "1")))
    monkeypatch.setattr("moaa.engines.process.hardware", devices.hardware)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").touch()
    return str(folder)


@asynccontextmanager
async def serving(
    models: dict[str, Model], calls: Calls = Calls(retries=3), **options: Any
) -> AsyncIterator[Bench]:
    runtime = Runtime(engines=Engines.model_validate(options), calls=calls)
    ledger, progress = Ledger(), Progress.silent()
    session = session_of(models, runtime, ledger=ledger, progress=progress)
    async with (
        Client(runtime.calls, ledger) as client,
        engines.start(session, client) as fleet,
    ):
        yield Bench(client, fleet, ledger, progress)
