"""Modules that take seconds to import: each worker of the tests reads all test files, one uses
them."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import pytest


class _Later:
    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        if attribute.startswith("_"):  # pytest looks whether this is a fixture or a test
            raise AttributeError(attribute)
        return getattr(importlib.import_module(self._name), attribute)


def later(name: str) -> Any:
    """Return a module that is imported when it is first used; skip this file if there is none."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed", allow_module_level=True)
    return _Later(name)
