"""A document that is no readable text is refused in one line, whatever reads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moaa import sweeps
from moaa.errors import MoaaError
from moaa.gateway.config import load_config
from moaa.gateway.keys import load_keys
from moaa.lifeline import RUNNER_ENV
from moaa.recipe.files import LARGEST_BYTES
from moaa.recipe.load import load_file
from moaa.task import Task
from moaa.train.job import Job


def _task(path: Path) -> Any:
    return Task(str(path), "run").load()


def _job(path: Path) -> Any:
    return Job.read(str(path))


@pytest.mark.parametrize("read", [load_file, load_config, load_keys, sweeps.load, _task, _job])
def test_what_is_no_text_is_refused_in_one_line(
    read: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(RUNNER_ENV, str(tmp_path))
    (tmp_path / "folder").mkdir()
    (tmp_path / "latin").write_bytes(b"name: \xe9")
    (tmp_path / "long").write_text("#" * (LARGEST_BYTES + 1))
    (tmp_path / "loop").symlink_to("loop")
    for name, said in (
        ("folder", "it is not a file"),
        ("latin", "it is not text in UTF-8. Save it as UTF-8."),
        ("long", "it has 1,048,577 bytes; 1,048,576 is the limit."),
        ("loop", "Too many levels of symbolic links"),
        ("none", "No such file or directory"),
    ):
        with pytest.raises(MoaaError) as error:
            read(tmp_path / name)
        (line,) = str(error.value).splitlines()
        assert f"{tmp_path / name}" in line
        assert f" cannot be read: {said}" in line
