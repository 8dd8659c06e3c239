"""`moaa retrain` on this machine: what it compares, what it exits with, what it writes."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path
from unittest.mock import Mock

import pytest

from moaa.artifacts.owner import Owner
from moaa.errors import StoreAway
from moaa.pipelines.outcome import RunFailed
from moaa.recipe.load import text_of
from moaa.registry import production
from moaa.retrain import progress
from tests.support.cli import called
from tests.support.memory_store import MemoryStore
from tests.support.retraining import (
    NAME,
    Command,
    Runs,
    command,
    failing,
    inputs_of,
    leave,
    loaded,
    promoted,
    put_version,
    recipe_file,
)

pytestmark = pytest.mark.xdist_group("kfp")
UNLIMITED = "{name: all, source: 'package:instructlab/eval/data/mt_bench/question.jsonl'}"


@pytest.fixture
def runs(store: MemoryStore, monkeypatch: pytest.MonkeyPatch) -> Runs:
    runs = Runs(store, promoted=promoted())
    monkeypatch.setattr("moaa.pipelines.local.run", runs)
    return runs


@pytest.fixture
def retrain(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Command:
    monkeypatch.setattr("moaa.artifacts.owner.LOOK_S", 0.01)
    return command(monkeypatch, capsys, tmp_path)


def test_from_the_first_promotion_to_changed_prompts(
    retrain: Command, runs: Runs, tmp_path: Path
) -> None:
    status, out, _ = retrain()
    assert status == 0
    assert out.endswith("aligned: promoted, version v1\ndpo passed all rules\n")
    status, out, _ = retrain("--local")
    assert status == 0
    assert "aligned: nothing new" in out
    assert "no input has changed since version v1, in production since 2026-01-31" in out
    assert "compared were recipe, code (moaa), prompts: package:" in out
    assert f", prompts: {tmp_path}/prompts.jsonl, benchmarks.mt_bench: package:" in out
    assert len(runs.ids) == 1
    with (tmp_path / "prompts.jsonl").open("a") as prompts:
        prompts.write('{"prompt": "one more"}\n')
    runs.version, runs.promoted = "v2", promoted("v2")
    status, out, _ = retrain()
    assert status == 0
    changed = [line for line in out.splitlines() if "->" in line]
    assert len(changed) == 1
    assert changed[0].startswith(f"prompts: {tmp_path}/prompts.jsonl: ")
    assert "aligned: promoted, version v2" in out
    assert len(set(runs.ids)) == 2


def test_a_changed_recipe_is_named_and_shown(
    retrain: Command, runs: Runs, store: MemoryStore, tmp_path: Path
) -> None:
    before = loaded(recipe_file(tmp_path))
    put_version(store, "v0", inputs_of(before, store), text_of(before.recipe))
    status, out, _ = retrain("--set", "dpo.beta=0.07", "--plan", "-o", "out")
    assert status == 0
    assert runs.ids == []
    assert out.endswith("aligned: planned\n1 input has changed; nothing was run\n")
    assert [line.split(":")[0] for line in out.splitlines() if "->" in line] == ["recipe"]
    page = Path("out/retrain.md").read_text()
    assert "```diff\n--- production\n+++ now\n" in page
    assert "+  beta: 0.07" in page.splitlines()
    assert "| label |" in page, "the plan"
    assert json.loads(Path("out/retrain.json").read_text())["state"] == "planned"


@pytest.mark.parametrize(
    ("verdict", "facts", "status", "state"),
    [
        ("promote", promoted(), 0, "promoted"),
        ("promote", None, 0, "published"),
        ("promote", {"promoted": None, "why": "pods were not ready in 600 s"}, 1, "failed"),
        ("refuse", None, 3, "refused"),
        ("undecided", None, 4, "undecided"),
    ],
)
def test_the_exit_status_is_what_the_gate_and_the_roll_out_decided(
    retrain: Command, runs: Runs, verdict: str, facts: dict | None, status: int, state: str
) -> None:
    runs.verdict, runs.promoted = verdict, facts
    assert retrain("-o", "out")[0] == status
    found = json.loads(Path("out/retrain.json").read_text())
    assert (found["state"], found["exit_status"]) == (state, status)
    assert found["run"] == runs.ids[0]
    assert found["decision"]["findings"][0]["rule"] == "wins"
    assert Path("out/report.html").read_text() == "<html>the report</html>"
    suite = ET.parse("out/retrain.xml").getroot()[0]
    rules = [case for case in suite if case.get("classname", "").endswith(".gate")]
    assert [case.get("name") for case in rules] == ["wins", "length", "reasoning: a | b"]
    kinds = [[child.get("type") for child in case.iter("failure")] for case in rules]
    assert kinds == [[], ["undecided"], ["fail"]]
    assert rules[1][0].get("message") == "1.2 (1.1 to 1.4); 1,200 items would decide it"
    if state == "failed":
        assert found["why"] == "not in production: pods were not ready in 600 s"


def test_a_failed_run_is_begun_anew_and_a_killed_one_goes_on(
    retrain: Command, runs: Runs, store: MemoryStore
) -> None:
    runs.fails = failing("label failed: the judge does not answer")
    status, _, err = retrain("-o", "out")
    assert status == 1
    assert "the judge does not answer" in err
    assert "the judge does not answer" in Path("out/retrain.md").read_text()
    runs.fails = KeyboardInterrupt()  # as on SIGTERM
    assert retrain("-o", "out")[0] == 130
    assert json.loads(Path("out/retrain.json").read_text())["exit_status"] == 1
    assert runs.ids[0] != runs.ids[1]
    runs.fails = None
    status, _, err = retrain()
    assert status == 0
    assert runs.ids[2] == runs.ids[1]
    assert f"continues run {runs.ids[1]}" in err
    assert not list(store.list(f"{store.root}/models/{NAME}/retrain/owner"))


def test_after_an_outside_fault_the_next_command_continues_the_same_run(
    retrain: Command, runs: Runs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ended with 1 like a mistake, and the next command paid for a new run."""
    runs.fails = RunFailed("generate failed: S3 does not answer", outside=True)
    status, _, err = retrain("-o", "out")
    assert status == 75
    assert "S3 does not answer" in err
    assert json.loads(Path("out/retrain.json").read_text())["exit_status"] == 75
    runs.fails = None
    assert retrain("--budget-gpu-hours", "0")[0] == 0, "its plan is already paid for"
    assert runs.ids[0] == runs.ids[1]
    away = Mock(side_effect=StoreAway("S3 does not answer"))
    monkeypatch.setattr(progress, "read", away)
    assert retrain()[0] == 75, "of the command itself too"


def test_a_killed_run_of_other_inputs_is_not_continued(retrain: Command, runs: Runs) -> None:
    runs.fails = KeyboardInterrupt()
    assert retrain()[0] == 130
    runs.fails = None
    assert retrain("--set", "dpo.beta=0.07")[0] == 0
    assert runs.ids[0] != runs.ids[1]


def test_who_comes_second_is_told_who_is_at_work(
    retrain: Command, runs: Runs, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("moaa.artifacts.owner._is_gone", lambda other: False)
    monkeypatch.setenv("CI_JOB_URL", "https://ci/jobs/7")
    with Owner(store, progress.folder(store, NAME), "the retraining by job 6") as first:
        assert first.take(0) == ""
        status, _, err = retrain("--wait-for-lock", "0.05", "-o", "out")
    assert status == 75
    assert "the retraining by job 6 (" in err
    assert runs.ids == []
    (case,) = ET.parse("out/retrain.xml").getroot().iter("testcase")
    assert case[0].tag == "skipped"
    assert retrain("--wait-for-lock", "0")[0] == 0


def test_what_another_one_promoted_meanwhile_is_not_done_again(
    retrain: Command, runs: Runs, store: MemoryStore, tmp_path: Path
) -> None:
    now = inputs_of(loaded(recipe_file(tmp_path)), store)
    taken = Owner.take

    def take(self: Owner, patience_s: float) -> str:
        put_version(store, "v1", now)
        return taken(self, patience_s)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Owner, "take", take)
        status, out, _ = retrain()
    assert (status, runs.ids) == (0, [])
    assert "nothing new" in out


def test_what_was_rolled_back_is_not_promoted_again(
    retrain: Command, runs: Runs, store: MemoryStore
) -> None:
    old = put_version(store, "v0", {"recipe": "another"})
    assert retrain()[0] == 0
    production.move(
        store, NAME, production.ProductionEntry(version="v0", uri=old.uri, why="users complain")
    )
    status, out, _ = retrain()
    assert (status, len(runs.ids)) == (0, 1)
    assert "these inputs lead to version v1, which was taken out of production" in out
    assert "users complain" in out
    assert "moaa promote aligned v1" in out
    assert retrain("--set", "dpo.beta=0.07")[0] == 0
    assert len(runs.ids) == 2


def test_inputs_that_lead_to_the_version_in_production_are_tried_once(
    retrain: Command, runs: Runs
) -> None:
    """A newer moaa may make the very same version: its lineage names the older one for ever."""
    runs.held = {"recipe": "as it was", "code (moaa)": "0.0.1"}
    assert retrain()[0] == 0
    status, out, _ = retrain()
    assert (status, len(runs.ids)) == (0, 1)
    assert "made version v1 from the same inputs; it is in production" in out


def test_a_published_version_is_not_published_again(retrain: Command, runs: Runs) -> None:
    runs.promoted = None
    assert retrain()[0] == 0
    status, out, _ = retrain()
    assert (status, len(runs.ids)) == (0, 1)
    assert "moaa promote aligned v1" in out


@pytest.mark.parametrize("left", [None, b'{"recipe": {}}'])
def test_a_version_of_unknown_origin_is_no_reason_to_stop(
    retrain: Command, runs: Runs, store: MemoryStore, left: bytes | None
) -> None:
    entry = put_version(store, "v0", {})
    store.delete(f"{entry.uri}/lineage.json")
    if left:
        store.put(f"{entry.uri}/lineage.json", left)
    status, _, err = retrain()
    assert (status, len(runs.ids)) == (0, 1)
    assert "lineage.json does not say what version v0 was made from" in err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--budget-gpu-hours", "0.001"), "GPU-hours, above --budget-gpu-hours 0.001"),
        (
            ("--budget-usd", "5", "--set", "models.smollm2.rate=null"),
            "--budget-usd 5 cannot be kept: the plan does not know what smollm2",
        ),
        (
            ("--budget-gpu-hours", "5", "--set", f"prompts.preference=[{UNLIMITED}]"),
            "--budget-gpu-hours 5 cannot be kept: the number of prompts in package:",
        ),
    ],
)
def test_a_plan_above_the_budget_is_not_begun(
    retrain: Command, runs: Runs, options: tuple[str, ...], says: str
) -> None:
    status, _, err = retrain(*options, "-o", "out")
    assert (status, runs.ids) == (1, [])
    assert says in err
    assert says in json.loads(Path("out/retrain.json").read_text())["why"]
    assert retrain("--budget-usd", "0.01", "--budget-gpu-hours", "100")[0] == 0


def test_a_recipe_that_publishes_nothing_is_refused(
    retrain: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    status, _, err = called(monkeypatch, capsys, "retrain", "demo")
    assert status == 1
    assert "  gate: {}\n  publish: {}" in err


def test_one_place_only(retrain: Command) -> None:
    status, _, err = retrain("--local", "--in-cluster")
    assert status == 2
    assert "Give one of --host, --in-cluster and --local." in err


def test_records_without_a_decision_are_a_failure(
    retrain: Command, runs: Runs, store: MemoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half(loaded: object, until: object, run_id: str) -> None:
        leave(store, run_id, "promote")
        store.delete(f"{store.root}/runs/{run_id}/gate.json")

    monkeypatch.setattr("moaa.pipelines.local.run", half)
    status, _, err = retrain()
    assert status == 1
    assert "the run has no decision of the gate" in err
