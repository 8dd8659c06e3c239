"""How a run ended: one rule for the terminal, the list of runs, the report and the exit status."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from moaa import report
from moaa.records import Record, StageError, broken, failure, read, run_status
from moaa.stages.table import stages
from tests.support.memory_store import MemoryStore
from tests.support.records import record

MADE = ("preflight", "prompts", "generate", "sft")


def run(*statuses: str) -> list[Record]:
    return [record(stage, status) for stage, status in zip(MADE, statuses, strict=False)]


@pytest.mark.parametrize(
    ("statuses", "word"),
    [
        (["done", "reused", "reused", "done"], "done"),
        (["done", "reused", "reused", "reused"], "reused"),
        (["done", "done"], "partial"),
        (["done", "done", "running"], "unfinished"),
        (["done", "running", "failed"], "failed"),
        (["failed"], "failed"),
    ],
)
def test_the_word_for_a_run_follows_its_worst_stage(statuses: list[str], word: str) -> None:
    assert run_status(run(*statuses), MADE) == word


def test_a_run_need_not_have_looked_before() -> None:
    assert run_status(run("done", "done", "done", "done")[1:], MADE) == "done"


def test_without_a_list_of_stages_no_run_is_partial() -> None:
    assert run_status(run("done", "done")) == "done"


def test_the_first_failure_is_the_error_of_the_run() -> None:
    records = [
        record("prompts", "running"),
        record("generate", "failed", error=StageError(type="EngineError", message="no GPU")),
        record("sft", "failed", error=StageError(type="MoaaError", message="no data")),
    ]
    assert broken(records) == records[1]
    assert failure(records) == "generate failed: no GPU"


def test_a_killed_stage_has_no_error_of_its_own() -> None:
    assert failure(run("done", "running")) == (
        "prompts failed: it stopped without an error (killed, or its pod is gone)"
    )


def test_a_bug_is_shown_with_its_traceback() -> None:
    error = StageError(type="KeyError", message="'x'", traceback="Traceback: …")
    assert failure([record("label", "failed", error=error)]) == "Traceback: …\nlabel failed: 'x'"


def test_a_good_run_has_no_error() -> None:
    assert broken(run("done", "reused")) is None
    assert failure(run("done", "reused")) == ""


def test_a_record_of_another_version_may_lack_fields() -> None:
    store = MemoryStore()
    text = '{"stage": "sft", "status": "failed", "started": "2026-01-01T00:00:00.000+00:00"}'
    store.put(f"{store.root}/runs/r1/sft.json", text.encode())
    (found,) = read(store, "r1")
    assert (found["run_id"], found["seconds"], found["manifest"]) == ("r1", 0.0, None)
    assert "sft failed" in report.summary(report.RunView.of([found], stages()))


def at_work(**changes: Any) -> Record:
    return record("sft", "running", **changes)


@pytest.mark.parametrize(
    ("last", "now", "word"),
    [
        ({}, "00:04", "running"),
        ({}, "00:06", "unfinished"),
        ({"beat": "2026-01-01T02:00:00+00:00"}, "02:04", "running"),
        ({"beat": "2026-01-01T02:00:00+00:00"}, "02:06", "unfinished"),
    ],
)
def test_a_run_is_running_only_while_a_stage_shows_that_it_is_at_work(
    last: dict[str, Any], now: str, word: str
) -> None:
    """Before, a run that was terminated half an hour ago was running."""
    assert run_status([at_work(**last)], now=at(now)) == word


def test_a_run_is_done_only_when_its_last_stage_is() -> None:
    """Before, a run was done in the 20 s that Kubeflow needs between two stages."""
    ended = {"ended": "2026-01-01T01:00:00+00:00"}
    facts = {"stages": ["preflight", "prompts", "sft"]}
    found = [record("preflight", "done", facts=facts, **ended), record("prompts", "done", **ended)]
    assert run_status(found, now=at("01:01")) == "running"
    assert run_status(found, now=at("01:30")) == "unfinished"
    found.append(record("sft", "reused", **ended))
    assert run_status(found, now=at("01:01")) == "done"


def at(clock: str) -> datetime:
    return datetime.fromisoformat(f"2026-01-01T{clock}:00+00:00")
