"""A local run: it continues under its id, and shows each message and each error once."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import NoReturn

import pytest

from moaa import home
from moaa.attempt import recorded
from moaa.declaration import Declaration
from moaa.errors import StoreError
from moaa.pipelines import local
from moaa.pipelines.outcome import RunFailed
from moaa.progress.messages import say, show
from moaa.recipe.load import load_file
from moaa.task import Task
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO


class Stages:
    """Takes the place of Kubeflow: each stage leaves its record, and fails if it is told to."""

    def __init__(self, store: MemoryStore) -> None:
        self.store = store
        self.failing: set[str] = set()
        self.told: list[str] = []
        self.terminals: list[str | None] = []
        self.message = ""
        self.unwritten = False
        """Whether the record of a failing stage cannot be written."""

    def __call__(
        self, recipe: Path, stages: Sequence[Declaration], run_id: str, folder: Path
    ) -> str:
        self.told.append(os.environ.get("MOAA_STAGES", ""))
        self.terminals.append(os.environ.get("MOAA_TTY"))
        for stage in stages:
            task = Task(str(recipe.absolute()), run_id)
            name = stage.name
            if name in self.failing:
                with pytest.raises(SystemExit), recorded(stage, task):
                    self.fail(name)
                return f"{name} failed"
            with recorded(stage, task) as attempt:
                if name == "sft" and self.message:
                    say(self.message)
                attempt.record["status"] = "done"
        with (folder / "log.txt").open("a") as log:
            log.write("one attempt\n")
        return ""

    def fail(self, name: str) -> NoReturn:
        self.store.fail_puts = int(self.unwritten)
        raise RunFailed(f"{name} was told to")


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stages:
    store = MemoryStore("s3://moaa/demo")
    kubeflow = Stages(store)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("moaa.store.s3.Store.of", lambda config, **more: store)
    monkeypatch.setattr(home, "s3_environment", lambda endpoint: nullcontext("memory"))
    monkeypatch.setattr(local, "_execute", kubeflow)
    return kubeflow


def test_a_run_goes_on_under_its_id(stages: Stages) -> None:
    """In a pod that takes the place of a lost one, or here: the records are overwritten, the page
    is made anew."""
    stages.failing = {"sample"}
    with pytest.raises(RunFailed, match="sample failed: sample was told to"):
        local.run(load_file(DEMO), "evaluate", "again")
    stages.failing = set()
    page = local.run(load_file(DEMO), "evaluate", "again")
    assert page == Path(".moaa/runs/again/report.html")
    assert "was told to" not in page.read_text()


def test_what_an_earlier_attempt_of_the_run_failed_of_does_not_fail_a_shorter_one(
    stages: Stages,
) -> None:
    stages.failing = {"sample"}
    with pytest.raises(RunFailed):
        local.run(load_file(DEMO), "evaluate", "again")
    local.run(load_file(DEMO), "sft", "again")
    assert stages.told == [
        "preflight,prompts,generate,sft,sample,label,dpo,evaluate",
        "preflight,prompts,generate,sft",
    ], "preflight is told how far the run goes"


def test_tasks_read_the_template_that_their_recipe_names(stages: Stages, tmp_path: Path) -> None:
    """They get the recipe as a text. It was checked when its file was loaded."""
    (tmp_path / "own.jinja").write_text("{{ messages[0].content }}")
    (tmp_path / "recipe.yaml").write_text("extends: demo")
    named = "models.smollm2.engine_args=[--chat-template, own.jinja]"
    local.run(load_file(tmp_path / "recipe.yaml", [named]), "sft", "named")
    assert "MOAA_ALLOW_FILES" not in os.environ


def test_messages_and_errors_are_shown_once(
    stages: Stages, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those of several lines. The error is the last, after the summary and the report."""
    show()
    stages.message = "sft: reused s3://moaa/demo/sft/1\n  its second line"
    stages.failing = {"sample"}
    with pytest.raises(RunFailed) as caught:
        local.run(load_file(DEMO), "evaluate", "shown")
    out, err = capsys.readouterr()
    assert str(caught.value) == "sample failed: sample was told to"
    assert "was told to" not in out
    assert err.count("sample was told to") == 1, "in the stage's own log, which is this process's"
    assert err.count("reused s3://") == 2, "in the stage's log, and on the runner's terminal"
    assert err.count("  its second line\n") == 2
    assert "report: .moaa/runs/shown/report.html" in out


def test_the_error_of_a_stage_that_could_not_write_its_record_is_shown(stages: Stages) -> None:
    """Its record still says that it runs."""
    stages.failing, stages.unwritten = {"sample"}, True
    with pytest.raises(RunFailed) as caught:
        local.run(load_file(DEMO), "evaluate", "lost")
    assert str(caught.value) == "sample failed: sample was told to"


def test_the_error_of_a_stage_is_shown_if_no_record_can_be_read(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> NoReturn:
        raise StoreError("the store is gone")

    monkeypatch.setattr("moaa.records.read", gone)
    with pytest.raises(StoreError):
        local.run(load_file(DEMO), "evaluate", "gone")
    stages.failing = {"sample"}
    with pytest.raises(RunFailed, match="told to\nThere is no report: the store is gone"):
        local.run(load_file(DEMO), "evaluate", "gone")


@pytest.mark.parametrize(
    ("level", "terminal"), [(logging.INFO, "/dev/pts/7"), (logging.ERROR, None)]
)
def test_a_quiet_run_has_no_live_view(
    stages: Stages, monkeypatch: pytest.MonkeyPatch, level: int, terminal: str | None
) -> None:
    for stream in (sys.stdout, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: True)
    monkeypatch.setattr(sys.stderr, "fileno", lambda: 2)
    monkeypatch.setattr(os, "ttyname", lambda number: "/dev/pts/7")
    show(level)
    local.run(load_file(DEMO), "prompts", "quiet")
    assert stages.terminals == [terminal]


def test_the_last_run_is_remembered_without_a_key(
    stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    local.run(load_file(DEMO), "sft", "mine")
    last = home.last_run()
    assert last is not None
    assert (last.run_id, last.root) == ("mine", load_file(DEMO).recipe.store.root)
    assert "s3cret" not in Path(".moaa/last.json").read_text()
