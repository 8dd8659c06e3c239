"""`make bench` runs each bench, and stops where one fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

BENCHES = sorted(f"tests.bench.{path.stem}" for path in (ROOT / "tests/bench").glob("*.py"))

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


def make_bench(folder: Path, python: str) -> subprocess.CompletedProcess[str]:
    """With this script in the place of Python; nothing is set up."""
    (folder / "python").write_text(f"#!/bin/sh\n{python}\n")
    (folder / "python").chmod(0o755)
    command = ["make", "-o", "setup", "-o", ".cache/setup-done", "bench", f"BIN={folder}"]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


def test_every_bench_starts(tmp_path: Path) -> None:
    done = make_bench(tmp_path, f'exec {sys.executable} "$@" --help')
    assert done.returncode == 0, done.stderr
    assert [
        line.removeprefix("== ") for line in done.stdout.splitlines() if line.startswith("== ")
    ] == BENCHES
    assert done.stdout.count("usage: ") == len(BENCHES)


def test_the_first_failure_ends_it(tmp_path: Path) -> None:
    done = make_bench(tmp_path, "exit 3")
    assert done.returncode != 0
    assert done.stdout.count("== ") == 1
