"""What the files of these tests share. One real engine is for all tests that only need answers:
starting one takes 40 s of a core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.machine_fleet import pretended
from tests.support.real_engine import SMOL, RealEngine, real_engine
from tests.support.streaming_engine import StreamingEngine


@pytest.fixture(scope="session")
def smol_folder() -> Path:
    """The folder with the small model's weights, converted on first use (30 s) and cached."""
    from moaa.store import Store
    from moaa.weights import local

    return Path(local.resolve(SMOL, Store("s3://unused")))


@pytest.fixture(scope="session")
def engine() -> Iterator[RealEngine]:
    """A real vLLM, started for the first test that asks for it and kept to the end."""
    with real_engine() as engine:
        yield engine


@pytest.fixture
def streaming_engine() -> Iterator[StreamingEngine]:
    """A server of the model `m` that streams, and answers the gateway's probes."""
    with StreamingEngine("m") as running:
        running.answers_probes = True
        yield running


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that looks like a model, for the fake vLLM and two cores of its own."""
    return pretended(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def small_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a small real model, with few layers."""
    from tests.support.training import cut_down

    return cut_down(tmp_path_factory.mktemp("small"))
