"""The folder with the public data, which `python -m tests.real.data FOLDER` fills."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Read = Callable[[str], Any]


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder that MOAA_REAL_DATA names. Without one, the test is skipped."""
    name = os.environ.get("MOAA_REAL_DATA")
    if not name:
        pytest.skip(
            "MOAA_REAL_DATA names no folder with the public data; "
            "to get it: python -m tests.real.data FOLDER"
        )
    return Path(name)


@pytest.fixture(scope="session")
def read(real_data: Path) -> Read:
    """Reads a JSON or JSONL file of that folder; a test whose file is missing is skipped."""

    def read_file(name: str) -> Any:
        path = real_data / name
        if not path.exists():
            pytest.skip(f"{path} is missing; to get it: python -m tests.real.data {real_data}")
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".jsonl":
            return [json.loads(line) for line in text.split("\n") if line.strip()]
        return json.loads(text)

    return read_file
