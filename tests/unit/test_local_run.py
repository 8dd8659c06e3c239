"""What a local run shows: what the stages say, none of Kubeflow's own lines."""

from __future__ import annotations

import io
import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from moaa.recipe.load import load_file
from moaa.records import recorded
from moaa.stages.table import STAGES, up_to
from pipelines import local
from pipelines.local import RunFailed, _Log
from tests.support.memory_store import MemoryStore

DEMO = Path("pipelines/recipes/demo.yaml").absolute()

KUBEFLOW = """23:48:25.919 - INFO - Executing task 'preflight'
        [KFP Executor 2026-11-24 23:48:26,000 INFO]: Got executor_input:
        {
            "recipe": "name: demo\\nstore: 1"
        }
preflight: 11 checks passed
    generate  3/24 conversations  1.2/s
    prompts: Dataset( name='prompts',
                      uri='x',
    prompts: reused s3://moaa/demo/prompts/1
    sft failed: loss is NaN at step 3
"""


@pytest.mark.parametrize("chunk", [1, 7, 10_000])
def test_only_what_stages_say_is_shown(chunk: int) -> None:
    log, terminal = io.StringIO(), io.StringIO()
    split = _Log(log, terminal)
    for at in range(0, len(KUBEFLOW), chunk):
        split.write(KUBEFLOW[at : at + chunk])
    assert log.getvalue() == KUBEFLOW
    assert terminal.getvalue().splitlines() == [
        "preflight: 11 checks passed",
        "generate  3/24 conversations  1.2/s",
        "prompts: reused s3://moaa/demo/prompts/1",
        "sft failed: loss is NaN at step 3",
    ]


class Stages:
    """Takes the place of Kubeflow: each stage leaves its record, and fails if it is told to."""

    def __init__(self) -> None:
        self.failing: set[str] = set()
        self.told: list[str] = []

    def __call__(self, recipe: str, until: str, run_id: str, folder: Path) -> str:
        self.told.append(os.environ.get("MOAA_STAGES", ""))
        for stage in up_to(until):
            name = stage.name
            if name in self.failing:
                with pytest.raises(SystemExit), recorded(stage, recipe, run_id):
                    raise RunFailed(f"{name} was told to")
                return f"{name} failed"
            with recorded(stage, recipe, run_id) as attempt:
                attempt.record["status"] = "done"
        with (folder / "log.txt").open("a") as log:
            log.write("one attempt\n")
        return ""


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Stages:
    kubeflow, store = Stages(), MemoryStore("s3://moaa/demo")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("moaa.store.s3.Store.of", lambda config: store)
    monkeypatch.setattr(local, "store_environment", lambda: nullcontext("memory"))
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
        ",".join(stage.name for stage in STAGES),
        "preflight,prompts,generate,sft",
    ], "preflight is told how far the run goes"
