"""docs/cluster.md says of everything in the store what the right to write it means."""

from __future__ import annotations

import re

import pytest

from moaa.artifacts import formats
from moaa.registry.data_set import DATA_SETS
from moaa.registry.versions import MODELS
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
TABLE = PAGE.partition("## What the right to write the bucket means")[2].partition("\n## ")[0]
WRITTEN = re.findall(r"`([^`]+)`", "\n".join(re.findall(r"^\| ([^|]*) \|", TABLE, re.MULTILINE)))
FOLDERS = re.findall(r"^(\S+/\S*) {2,}", formats.HEAD, re.MULTILINE)


@pytest.mark.parametrize("path", FOLDERS)
def test_each_folder_of_the_store_has_a_row(path: str) -> None:
    assert any(path.startswith(row) for row in WRITTEN)


def test_what_is_written_besides_has_a_row() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8") for path in sorted((ROOT / "moaa").rglob("*.py"))
    )
    found = set(re.findall(r"store\.root\}/([a-z]+)/", sources)) | {MODELS, DATA_SETS}
    rows = {row.partition("/")[0] for row in WRITTEN}
    assert found - rows == {"tensorboard"}  # curves for people


def test_security_names_the_table() -> None:
    text = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    assert "docs/cluster.md#what-the-right-to-write-the-bucket-means" in text
