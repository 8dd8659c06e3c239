"""The record of a stage: how it ended, also if the store is away."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from moaa import records
from moaa.attempt import Attempt, recorded
from moaa.errors import MoaaError
from moaa.lifeline import RUNNER_ENV
from moaa.recipe.load import digest_of, load_file
from moaa.stages.table import LABEL, PROMPTS
from moaa.task import Task
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO


def test_the_record_says_running_then_done(store: MemoryStore) -> None:
    text = DEMO.read_text()
    with recorded(PROMPTS, Task(text, "run-1")) as attempt:
        assert records.read(store, "run-1")[0]["status"] == "running"
        attempt.record["status"] = "done"
    (found,) = records.read(store, "run-1")
    assert (found["stage"], found["status"], found["error"]) == ("prompts", "done", None)
    assert found["ended"] is not None
    assert found["ended"] >= found["started"]


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({"dpo.beta": 0.2}, False),
        ({"runtime.max_rejected_share": 0.5, "store.root": "s3://other/demo"}, True),
    ],
)
def test_the_record_says_of_which_recipe_it_is(
    store: MemoryStore, changes: dict[str, object], same: bool
) -> None:
    given = digest_of(load_file(DEMO).recipe)
    with recorded(PROMPTS, Task(DEMO.read_text(), "run-1", changes)):
        assert (records.read(store, "run-1")[0]["recipe"] == given) is same


def test_a_user_error_ends_the_process_with_its_message_and_stands_in_the_record(
    store: MemoryStore, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended, recorded(LABEL, Task(DEMO.read_text(), "run-2")):
        raise MoaaError("the judge is not served")
    assert ended.value.code == 1
    assert "label failed: the judge is not served" in capsys.readouterr().err
    (found,) = records.read(store, "run-2")
    assert found["status"] == "failed"
    assert found["error"] == {"type": "MoaaError", "message": "the judge is not served"}


def test_a_store_that_is_gone_costs_the_record_alone_and_the_stages_own_error_comes_last(
    store: MemoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def loses_its_store() -> None:
        store.fail_puts = 1
        raise MoaaError("the judge is not served")

    with (
        pytest.raises(SystemExit) as ended,
        recorded(LABEL, Task(DEMO.read_text(), "r"), str(tmp_path / "summary")),
    ):
        loses_its_store()
    assert ended.value.code == 1
    record, own = capsys.readouterr().err.splitlines()
    assert record.startswith(
        "label: its record could not be written: s3://moaa/demo/runs/r/label.json: memory was told"
    )
    assert own == "label failed: the judge is not served"
    assert "the judge is not served" in (tmp_path / "summary").read_text()


def test_a_store_that_cannot_be_reached_at_all_is_said_once(
    store: MemoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.fail_puts = 2
    with (
        pytest.raises(SystemExit),
        recorded(LABEL, Task(DEMO.read_text(), "r"), str(tmp_path / "summary")),
    ):
        raise AssertionError("it does not begin")
    assert capsys.readouterr().err.splitlines() == [
        "label failed: s3://moaa/demo/runs/r/label.json: memory was told to fail."
    ]
    assert "memory was told to fail" in (tmp_path / "summary").read_text()


def test_a_stage_that_was_done_but_could_not_be_recorded_fails_readably(
    store: MemoryStore, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def ends_without_its_store(attempt: Attempt) -> None:
        attempt.record["status"] = "done"
        store.fail_puts = 1

    with (
        pytest.raises(SystemExit) as ended,
        recorded(LABEL, Task(DEMO.read_text(), "r"), str(tmp_path / "summary")) as attempt,
    ):
        ends_without_its_store(attempt)
    assert ended.value.code == 1
    assert "label is done, but its record could not be written: s3://" in capsys.readouterr().err
    assert "label: done" in (tmp_path / "summary").read_text()


@pytest.mark.parametrize("fails", [True, False])
def test_a_summary_that_cannot_be_written_costs_neither_the_record_nor_the_error(
    store: MemoryStore, capsys: pytest.CaptureFixture[str], fails: bool
) -> None:
    with (
        contextlib.suppress(SystemExit),
        recorded(LABEL, Task(DEMO.read_text(), "r"), "/dev/full") as attempt,
    ):
        attempt.record["status"] = "done"
        if fails:
            raise MoaaError("the judge is not served")
    assert records.read(store, "r")[0]["status"] == ("failed" if fails else "done")
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("label: its summary could not be written: ")
    assert said[1:] == (["label failed: the judge is not served"] if fails else [])


def test_a_bug_keeps_its_traceback_in_the_record(store: MemoryStore) -> None:
    with pytest.raises(ZeroDivisionError), recorded(LABEL, Task(DEMO.read_text(), "run-3")):
        _ = 1 / 0
    error = records.read(store, "run-3")[0]["error"]
    assert error is not None
    assert "ZeroDivisionError" in error["traceback"]


def test_a_recipe_by_address_must_have_its_digest(
    store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    import hashlib

    text = DEMO.read_bytes()
    monkeypatch.setattr("moaa.task.Store", lambda root: store)
    good = f"s3://moaa/recipes/{hashlib.sha256(text).hexdigest()}.yaml"
    store.put(good, text)
    assert Task(good, "r").load().recipe == load_file(DEMO).recipe
    store.put(good, text + b"\n# changed")
    with pytest.raises(MoaaError, match="was changed"):
        Task(good, "r").load()


def test_a_wrong_recipe_is_named_by_the_file_that_a_person_can_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MoaaError, match=r"^recipe:1: "):
        Task("name: x", "r").load()
    file = tmp_path / "recipe.yaml"
    file.write_text("name: x")
    with pytest.raises(MoaaError, match="a recipe is a mapping of fields"):
        Task(str(file), "r").load()
    monkeypatch.setenv(RUNNER_ENV, str(tmp_path))
    with pytest.raises(MoaaError, match=rf"^{file}:1: "):
        Task(str(file), "r").load()
    with pytest.raises(MoaaError, match="cannot be read: No such file"):
        Task("/nosuch/recipe.yaml", "r").load()
