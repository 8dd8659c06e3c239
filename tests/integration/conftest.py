"""One real engine for all tests that only need answers: starting one takes 40 s of a core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.real_engine import SMOL, RealEngine, real_engine


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
