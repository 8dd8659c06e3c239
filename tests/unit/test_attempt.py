"""What a stage's record says when the stage was stopped, and when its error is no proper text."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from moaa import records
from moaa.attempt import recorded
from moaa.errors import OUTSIDE, EngineAway, HubAway, MoaaError, StoreAway
from moaa.kubernetes.errors import Unreachable
from moaa.pipelines import runner_job
from moaa.recipe.load import load_file
from moaa.report import RunView, page
from moaa.stages.table import GENERATE, PREFLIGHT, stages
from moaa.task import Task
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.waiting import until


def recorded_of(store: MemoryStore, work: Callable[[], None]) -> records.Record:
    def stage() -> None:
        with recorded(GENERATE, Task(load_file(DEMO).text, "run")):
            work()

    with pytest.raises((SystemExit, ExceptionGroup, ValueError)):
        stage()
    (record,) = records.read(store, "run")
    return record


def terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def with_a_screen_that_breaks() -> None:
    """Kubeflow's launcher goes first: what a stage shows goes into a closed pipe."""
    try:
        terminate()
    finally:
        raise BrokenPipeError(32, "Broken pipe")


def with_engines_that_cannot_be_released() -> None:
    try:
        terminate()
    except BaseException:
        raise MoaaError("the API server does not answer") from None


def among_calls() -> None:
    async def call() -> None:
        await asyncio.sleep(0.01)
        terminate()
        await asyncio.sleep(10)

    async def calls() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(call())
            group.create_task(asyncio.sleep(10))

    asyncio.run(calls())


@pytest.mark.parametrize(
    "work",
    [terminate, with_a_screen_that_breaks, with_engines_that_cannot_be_released, among_calls],
)
def test_a_terminated_stage_is_not_recorded_as_a_crash(
    store: MemoryStore, work: Callable[[], None]
) -> None:
    """Before, the record said: failed, BrokenPipeError, with a traceback."""
    record = recorded_of(store, work)
    assert (record["status"], record["error"]) == (
        "terminated",
        {"type": "Terminated", "message": "the stage was terminated before it was done"},
    )
    assert records.run_status([record]) == "terminated"
    assert records.failure([record]) == (
        "generate was terminated: the stage was terminated before it was done"
    )


def test_half_a_surrogate_pair_in_an_error_does_not_leave_the_record_running(
    store: MemoryStore,
) -> None:
    """Before, a UnicodeEncodeError took its place, and the record said `running` for ever."""

    def work() -> None:
        raise MoaaError("the rows have no column 'text\ud83d'")

    record = recorded_of(store, work)
    assert record["status"] == "failed"
    assert records.failure([record]) == "generate failed: the rows have no column 'text?'"


def test_a_record_with_half_a_surrogate_pair_can_be_shown(store: MemoryStore) -> None:
    """From another version of moaa, which wrote it as an escape."""
    store.put(
        f"{store.root}/runs/run/generate.json",
        b'{"stage": "generate", "status": "failed", "started": "2026", "error": '
        b'{"type": "X", "message": "text\\ud83d"}}',
    )
    assert records.failure(records.read(store, "run")).encode() == b"generate failed: text?"


def test_an_earlier_version_s_terminated_stage_is_one_too(store: MemoryStore) -> None:
    store.put(
        f"{store.root}/runs/run/generate.json",
        b'{"stage": "generate", "status": "failed", "started": "2026", "error": '
        b'{"type": "Terminated", "message": "the stage was stopped before it was done"}}',
    )
    assert records.run_status(records.read(store, "run")) == "terminated"


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StoreAway("s3://a: away"), OUTSIDE),
        (HubAway("away"), OUTSIDE),
        (EngineAway("the endpoint is away"), OUTSIDE),
        (Unreachable("the API server is away"), OUTSIDE),
        (MoaaError("wrong"), 1),
    ],
)
def test_an_outside_fault_has_an_exit_status_of_its_own(
    store: MemoryStore, error: MoaaError, status: int
) -> None:
    with pytest.raises(SystemExit) as ended, recorded(GENERATE, Task(load_file(DEMO).text, "run")):
        raise error
    assert ended.value.code == status
    (record,) = records.read(store, "run")
    assert (record["status"], record["error"]["message"]) == ("failed", str(error))  # type: ignore[index]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_said_as_such_not_as_a_bug(store: MemoryStore, number: int) -> None:
    """/tmp of a task, a log, a training's data: each ended in a traceback."""
    full = OSError(number, os.strerror(number), "/tmp/data.arrow")
    with pytest.raises(SystemExit), recorded(GENERATE, Task(load_file(DEMO).text, "run")):
        raise full
    (record,) = records.read(store, "run")
    error = record["error"]
    assert error is not None
    assert (error["type"], "traceback" in error) == ("DiskFull", False)
    assert "full (/tmp/data.arrow)" in error["message"]
    assert "what was answered and committed is kept" in error["message"]


def test_a_new_pod_begins_again_after_an_outside_fault_but_not_after_another() -> None:
    rules = runner_job.job(load_file(DEMO), "run", runner_job.of_run("prompts"))["spec"][
        "podFailurePolicy"
    ]["rules"]
    failing = [code for rule in rules for code in rule.get("onExitCodes", {}).get("values", [])]
    assert failing == [1, 2]
    assert OUTSIDE not in failing


def test_a_stage_begins_while_the_store_is_away_but_preflight_says_so_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[bool] = []

    def of(config: object, *, reached: bool = False) -> MemoryStore:
        seen.append(reached)
        return MemoryStore()

    monkeypatch.setattr("moaa.store.s3.Store.of", of)
    for stage in (PREFLIGHT, GENERATE):
        with recorded(stage, Task(load_file(DEMO).text, "run")):
            pass
    assert seen == [False, True]


def test_a_record_counts_the_attempts_of_its_run_and_names_the_recipe(store: MemoryStore) -> None:
    """So that the report of a retried run says which attempt it shows, also if preflight failed."""

    def fail() -> None:
        raise MoaaError("no")

    assert recorded_of(store, fail).get("attempt") == 1
    record = recorded_of(store, fail)
    assert (record.get("attempt"), record.get("name")) == (2, "demo")
    run = RunView.of([record], stages())
    made = datetime(2026, 11, 28, 14, 3, tzinfo=UTC)
    shown = page(run, lambda manifest, table: iter(()), made)
    assert "2026-11-28 14:03 UTC, attempt 2" in shown
    assert "<title>demo: failed</title>" in shown


def test_a_stage_at_work_shows_it(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "BEAT_S", 0.01)

    def beat() -> bool:
        (record,) = records.read(store, "run")
        return record["status"] == "running" and "beat" in record

    with recorded(GENERATE, Task(load_file(DEMO).text, "run")) as attempt:
        until(beat)
        attempt.record["status"] = "done"
    (record,) = records.read(store, "run")
    assert record["status"] == "done"


def test_a_stage_says_that_it_is_terminated_before_it_has_cleaned_up(store: MemoryStore) -> None:
    """Kubeflow's launcher kills it a moment later: two of three terminated runs were `running`."""

    def work() -> None:
        try:
            terminate()
        finally:
            until(lambda: records.run_status(records.read(store, "run")) == "terminated")

    assert recorded_of(store, work)["status"] == "terminated"
