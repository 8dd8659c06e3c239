"""A sweep: its document, what its variants share and cost, how they run."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from moaa import sweeps
from moaa.commands import sweep_run
from moaa.stages.table import up_to
from moaa.stages.texts import _read
from moaa.sweeps import sharing
from moaa.sweeps.document import SHIPPED
from moaa.sweeps.pricing import within
from tests.support.cli import called
from tests.support.paths import DEMO
from tests.support.small_sweep import SWEEP, written


@pytest.fixture
def sweep(tmp_path: Path) -> sweeps.Sweep:
    return sweeps.load(written(tmp_path))


def planned(sweep: sweeps.Sweep) -> list[sweeps.Priced]:
    return sweeps.priced(sweep.variants, up_to(sweep.until))


def test_variants_have_recipes_and_runs_of_their_own(sweep: sweeps.Sweep) -> None:
    assert [each.run_id for each in sweep.variants] == [
        "small-mixture", "small-random", "small-teacher", "small-teacher-random",
    ]  # fmt: skip
    assert sweep.variants[1].loaded.recipe.label.labeller == "random"
    assert sweep.variants[1].sets == ("plan.gpu_hour_usd=3600", "label.labeller=random")
    assert (sweep.recipe.resolve(), sweep.until) == (DEMO.resolve(), "label")


def test_a_stage_that_variants_share_is_counted_once(sweep: sweeps.Sweep) -> None:
    found = {each.variant.name: each for each in planned(sweep)}
    assert {name: each.shared for name, each in found.items()} == {
        "mixture": (),
        "random": ("prompts", "generate", "sft", "sample"),
        "teacher": ("prompts",),
        "teacher-random": ("prompts", "generate", "sft", "sample"),
    }
    assert {line.stage for line in found["mixture"].lines} == {"generate", "sft", "sample", "label"}
    assert found["random"].lines == ()
    assert found["random"].keys["label"] != found["mixture"].keys["label"]
    assert found["random"].keys["sample"] == found["mixture"].keys["sample"]


def test_keys_of_variants_are_made_without_reading_models_or_a_word(
    sweep: sweeps.Sweep, caplog: pytest.LogCaptureFixture
) -> None:
    _read.cache_clear()
    caplog.set_level("WARNING", "moaa")
    sharing.keys(sweep.variants[0].loaded.recipe, up_to(sweep.until))
    assert not caplog.records
    assert not _read.cache_info().misses


def test_what_does_not_enter_a_result_is_shared(tmp_path: Path) -> None:
    text = SWEEP.replace("label.labeller=random]}\n  teacher:", "runtime.calls.retries=1]}\n  t:")
    _, other, *_ = planned(sweeps.load(written(tmp_path, text)))
    assert other.shared == ("prompts", "generate", "sft", "sample", "label")


def test_the_budget_admits_variants_in_order(sweep: sweeps.Sweep) -> None:
    whole = planned(sweep)
    first, _, third, _ = (each.usd or 0.0 for each in whole)
    assert first > third > 0

    def names(budget: float | None) -> list[str]:
        return [each.variant.name for each in within(whole, budget)]

    assert names(None) == ["mixture", "random", "teacher", "teacher-random"]
    assert names(first) == ["mixture", "random"]
    assert names(first + third) == ["mixture", "random", "teacher", "teacher-random"]
    assert names(0) == []


def test_the_plan_knows_the_budget_of_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    planned = ("sweep", str(written(tmp_path)), "--plan")
    _, out, _ = called(monkeypatch, capsys, *planned, "--budget", "0")
    assert "budget: $0; 0 of 4 variants fit" in out
    _, out, _ = called(monkeypatch, capsys, *planned)
    assert "budget" not in out


def test_a_variant_begins_when_no_other_computes_what_it_needs() -> None:
    done: set[str] = set()
    assert sweeps.may_start({"p", "a"}, [], done)
    assert not sweeps.may_start({"p", "a"}, [{"p", "b"}], done)
    assert sweeps.may_start({"p", "a"}, [{"p", "b"}], {"p"})


@pytest.mark.parametrize("at_once", [1, 2])
def test_variants_run_side_by_side_unless_they_share_what_is_not_done(
    sweep: sweeps.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    log: list[str] = []
    beside: list[set[str]] = []

    def started(runs: Any, each: sweeps.Priced) -> subprocess.Popen[bytes]:
        log.append(each.variant.name)
        beside.append(set(runs._running))
        failing = each.variant.name == "teacher"
        code = f"import time; time.sleep(0.2); raise SystemExit({int(failing)})"
        return subprocess.Popen([sys.executable, "-S", "-c", code])

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_run, "LOOK_EVERY_S", 0.01)
    monkeypatch.setattr(sweep_run._Runs, "_started", started)
    failed = sweep_run._Runs(sweep, planned(sweep), at_once).run()
    assert failed == ["teacher"]
    assert log[0] == "mixture"
    assert sorted(log) == ["mixture", "random", "teacher", "teacher-random"]
    # All share the prompts, so the first runs alone; the two teachers never run together.
    together = dict(zip(log, beside, strict=True))
    assert together["random"] <= {"teacher", "teacher-random"}
    assert "teacher" not in together["teacher-random"]
    assert any(beside) == (at_once == 2)


def test_a_sweep_that_is_stopped_stops_its_runs(
    sweep: sweeps.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[subprocess.Popen[bytes]] = []

    def started(runs: Any, each: sweeps.Priced) -> subprocess.Popen[bytes]:
        made.append(subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(60)"]))
        return made[-1]

    def interrupted(runs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_run._Runs, "_started", started)
    monkeypatch.setattr(sweep_run._Runs, "_look", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep_run._Runs(sweep, planned(sweep), 1).run()
    assert [each.returncode for each in made] == [-15]


def test_a_run_is_the_command_that_a_person_would_type(
    sweep: sweeps.Sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[list[str], str]] = []

    def popen(command: list[str], env: dict[str, str], **more: Any) -> None:
        called.append((command[1:], env["MOAA_RUN_ID"]))

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sweep_run.subprocess, "Popen", popen)  # type: ignore[attr-defined]
    sweep_run._Runs(sweep, [], 2)._started(planned(sweep)[1])
    ((command, run_id),) = called
    assert run_id == "small-random"
    assert command[:3] == ["-m", "moaa.cli", "run"]
    assert command[4:] == [
        "--until", "label", "--set", "plan.gpu_hour_usd=3600", "--set", "label.labeller=random",
    ]  # fmt: skip


def test_the_papers_ablations_are_recipes_that_can_be_planned() -> None:
    sweep = sweeps.load(SHIPPED / "paper-tables.yaml")
    found = {each.variant.name: each for each in planned(sweep)}
    labellers = [name for name in found if name.startswith("label-")]
    assert len(labellers) == 6
    for name in labellers:
        assert found[name].shared == ("prompts", "generate", "sft", "sample")
    sources = {each.loaded.recipe.generate.source for each in sweep.variants}
    assert sources == {"mixture", "original", "random", "all", "best", "teacher"}
    assert all(each.usd for each in found.values())


def test_the_papers_ablations_measure_what_the_papers_tables_have() -> None:
    sweep = sweeps.load(SHIPPED / "paper-tables.yaml")
    tables = {"alpaca_eval", "mt_bench", "arena_hard"}
    reasoning = {"gsm8k", "mmlu_pro", "ifeval", "ifbench"}
    mixtures = set()
    for each in sweep.variants:
        recipe = each.loaded.recipe
        assert set(recipe.evaluate.chosen) == {"head_to_head"} | tables | reasoning, each.name
        assert set(recipe.evaluate.contestants) >= {"base", "sft", "dpo"}, each.name
        if "mixture" in recipe.evaluate.contestants:
            mixtures.add(each.name)
        # One judge for all: a variant changes who prefers the training data, not who measures.
        judge = recipe.evaluation_judge
        assert judge.criteria == "per-pair", each.name
        assert judge == sweep.variants[0].loaded.recipe.evaluation_judge, each.name
    assert mixtures == {"paper", "sft-self-moa"}
    evaluations = [
        sum(line.calls for line in each.lines if line.stage == "evaluate")
        for each in planned(sweep)
    ]
    # 805 instructions in both orders, 9 calls each, of three contestants: the price has them.
    assert min(evaluations) > 805 * 2 * 9 * 3
