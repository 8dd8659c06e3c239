"""A file has one reason to change; one that grows longer than 300 lines has two."""

from __future__ import annotations

import subprocess

from tests.support.paths import ROOT

MAX_LINES = 300


def test_no_file_of_the_product_or_its_tests_is_longer_than_300_lines() -> None:
    listed = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.py"]
    found = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=False).stdout
    paths = [ROOT / name for name in found.split()] or [
        path
        for folder in ("moaa", "pipelines", "components", "tests", "helm")
        for path in (ROOT / folder).rglob("*.py")
    ]
    lines = {
        path.relative_to(ROOT): len(path.read_text().splitlines())
        for path in paths
        if path.is_file()
    }
    assert len(lines) > 300
    assert {path: n for path, n in lines.items() if n > MAX_LINES} == {}, "split it by subject"
