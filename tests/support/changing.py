"""The demo with changes, and two commits of the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from tests.support.hub import Hub, serve
from tests.support.paths import DEMO

FIRST, SECOND = "a" * 40, "b" * 40


@contextmanager
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A hub of the test's own, which is asked although the tests are offline."""
    # Imported while the variable is still set: what it says then is what later tests see.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    with serve() as hub:
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        yield hub


def recipe(*sets: str) -> Recipe:
    return load_file(DEMO, sets).recipe
