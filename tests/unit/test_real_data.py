"""The checks of published numbers: without their data they fail, and say what is missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.real import data
from tests.real.conftest import read_file


def test_a_file_that_was_not_fetched_fails_the_test_that_needs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`make test-real` was green without a network: everything was skipped."""
    monkeypatch.setenv("MOAA_REAL_DATA", str(tmp_path))
    with pytest.raises(pytest.fail.Exception, match=rf"rows.jsonl is missing.*data {tmp_path}"):
        read_file(tmp_path / "rows.jsonl")
    (tmp_path / "rows.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
    assert read_file(tmp_path / "rows.jsonl") == [{"a": 1}, {"a": 2}]
    (tmp_path / "all.json").write_text(json.dumps([1]))
    assert read_file(tmp_path / "all.json") == [1]


def test_a_repository_that_cannot_be_reached_is_said_in_one_sentence(tmp_path: Path) -> None:
    data.git(str(tmp_path), "init", "-q", "--bare", ".")
    away = (tmp_path / "away").as_uri()
    with pytest.raises(SystemExit, match=r"(?s)cannot be fetched: git fetch .*REAL_DATA=FOLDER"):
        data.git(str(tmp_path), "fetch", away, "0" * 40)


def test_other_content_is_refused() -> None:
    with pytest.raises(SystemExit, match="not the published content"):
        data.check("rows.json", b"other", data.HUB_SHA256)
