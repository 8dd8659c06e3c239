"""One real engine for all tests that only need answers: starting one takes 40 s of a core."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.real_engine import SMOL, RealEngine, real_engine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give one worker all engines and trainings, and the other worker the rest, file by file."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            real = item.get_closest_marker("real")
            item.add_marker(pytest.mark.xdist_group("real" if real else item.path.stem))


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
