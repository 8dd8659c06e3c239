"""The folder with the public data, which `python -m tests.real.data FOLDER` fills."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Read = Callable[[str], Any]


def there(path: Path) -> Path:
    """Return the file, or fail the test: who names the folder wants the numbers."""
    if not path.exists():
        pytest.fail(
            f"{path} is missing: it was not fetched. With a network, this gets it: "
            f"python -m tests.real.data {os.environ.get('MOAA_REAL_DATA', 'FOLDER')}",
            pytrace=False,
        )
    return path


def read_file(path: Path) -> Any:
    """Return what a JSON file has, or the rows of a JSONL file."""
    text = there(path).read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    return json.loads(text)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that MOAA_REAL_DATA names. Without the name, the test is skipped; `make test-real`
    gives it."""
    name = os.environ.get("MOAA_REAL_DATA")
    if not name:
        pytest.skip(
            "MOAA_REAL_DATA names no folder with the public data; "
            "to get it: python -m tests.real.data FOLDER"
        )
    return Path(name)


@pytest.fixture(scope="session")
def read(real_data: Path) -> Read:
    """Reads a JSON or JSONL file of that folder; a test whose file is missing fails."""
    return lambda name: read_file(real_data / name)
