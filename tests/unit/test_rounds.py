"""Rounds of self-improvement: the next round's recipe, its prompts, its place in the pipeline."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pytest

from moaa import plan, records
from moaa.artifacts import Artifact, Draft, Output, Parent
from moaa.declaration import Declaration
from moaa.errors import RecipeError
from moaa.pipelines import local
from moaa.placement.compiled import fields
from moaa.prompts.sources import refuse_short
from moaa.recipe import Recipe
from moaa.recipe.load import load_file, load_text, text_of
from moaa.recipe.next_round import follow, planned
from moaa.recipe.rounds import made_by_run
from moaa.registry import findings
from moaa.stages.gate import part_of
from moaa.stages.rounds import kept_next, next_of
from moaa.stages.table import EVALUATE, GENERATE, PREFLIGHT, STAGES, of_recipe
from moaa.task import Task
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO, ROOT
from tests.support.recipes import SMALL, refused_text

WON = "promote"
GATED = SMALL + "gate: {}\n"


def recipe(rounds: str = "3") -> Recipe:
    return load_text(f"{GATED}rounds: {rounds}\n").recipe


def test_the_short_form_and_a_path_into_it() -> None:
    assert recipe().rounds.n == 3
    text = GATED + "rounds: 3\n"
    assert load_text(text, ["rounds.n=2"]).recipe.rounds.n == 2
    assert load_text(GATED, ["rounds=2", "rounds.prompts=same"]).recipe.rounds.prompts == "same"
    kept = load_text(GATED + "rounds: {n: 3, prompts: same}\n", ["rounds.n=2"]).recipe.rounds
    assert (kept.n, kept.prompts) == (2, "same")


def test_the_winner_takes_the_place_of_the_target() -> None:
    second = follow(recipe(), "s3://bucket/small/dpo/x")
    assert second.target == "m+round-1"
    assert second.models["m+round-1"].source == "s3://bucket/small/dpo/x"
    members = [member.model for member in second.generate.mixture.proposers]
    assert members == ["m+round-1", "other"]
    assert second.generate.mixture.aggregator.model == "m+round-1"
    assert second.label.judge.aggregator.model == "m+round-1"
    assert second.gate
    assert second.gate.against == "base"
    assert made_by_run(second.models) == {"m+round-1"}


def test_the_evaluation_keeps_its_judge_and_measures_the_first_model() -> None:
    first, second, third = planned(recipe())
    assert second.evaluation_judge == first.evaluation_judge == third.evaluation_judge
    assert second.evaluate.contestants[0] == third.evaluate.contestants[0] == "m"
    assert third.target == "m+round-2"
    assert "m+round-1" not in third.models


def test_each_round_reads_the_next_slice_or_the_same_prompts() -> None:
    offsets = [each.prompts.sft[0].offset for each in planned(recipe())]
    assert offsets == [0, 10, 20]
    same = planned(recipe("{n: 3, prompts: same}"))
    assert [each.prompts.sft[0].offset for each in same] == [0, 0, 0]
    evaluated = {each.prompts.evaluation for each in planned(recipe())}
    assert len(evaluated) == 1


def test_a_source_that_is_too_small_says_for_which_round() -> None:
    source = planned(recipe())[2].prompts.sft[0]
    refuse_short("sft", source, 10, 3)
    with pytest.raises(RecipeError, match="too small for round 3, which reads its rows 20 to 29"):
        refuse_short("sft", source, 4, 3)


def test_the_recipe_of_a_round_can_be_read_again() -> None:
    for each in planned(load_file(DEMO, ["gate={}", "rounds=3"]).recipe):
        assert load_text(text_of(each)).recipe == each


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "rounds: 2\n", "the gate decides whether there is a next round"),
        (GATED.replace("b.jsonl, limit: 10", "b.jsonl") + "rounds: 2\n", "give a limit, or set"),
        (GATED.replace("{name: one, model: m}", "{name: one, model: other}")
         .replace("aggregator: {model: m}\nlabel", "aggregator: {model: other}\nlabel")
         + "rounds: 2\n", "the target m writes no data"),
        (GATED + "evaluate: {contestants: [sft, dpo]}\nrounds: 2\n", "add 'base'"),
        (GATED + "rounds: 11\n", "less than or equal to 10"),
    ],
)  # fmt: skip
def test_rounds_that_could_not_work_are_refused(text: str, message: str) -> None:
    assert message in "\n".join(refused_text(text))


def test_one_round_changes_no_fingerprint_and_no_plan() -> None:
    one, none = recipe("1"), load_text(GATED).recipe
    assert one == none
    assert "rounds" not in none.model_dump(mode="json", exclude_defaults=True)
    assert not [path for path in fields(none, STAGES) if path.startswith("round ")]
    assert len(plan.of_rounds(none, STAGES)) == 1
    assert len(plan.of_rounds(recipe(), STAGES)) == 3


def decided(store: MemoryStore, verdict: str) -> Artifact:
    """A decision, its scores, and the models that these are of."""

    def made(stage: str, kind: str, parents: dict[str, Artifact], **facts: object) -> Artifact:
        with Output(store, f"{store.root}/{stage}/x", kind) as out:
            of = [Parent.of(name, each.manifest) for name, each in parents.items()]
            draft = Draft(stage=stage, name="n", fingerprint="x", parents=of, facts=facts)
            return Artifact(store, out.commit(draft))

    model = made("dpo", "model", {}, system_role=False)
    scores = made("evaluate", "scores", {"dpo": model})
    decision = {"verdict": verdict, "candidate": "dpo"}
    return made("gate", "decision", {"scores": scores}, decision=decision)


def test_only_a_promoted_model_leads_to_a_next_round() -> None:
    store = MemoryStore()
    second = next_of(recipe(), decided(store, "promote").manifest, store)
    assert second
    assert second.models[second.target].source == f"{store.root}/dpo/x"
    assert not second.models[second.target].system_role, "asked as it was trained"
    for verdict in ("refuse", "undecided"):
        other = MemoryStore()
        assert next_of(recipe(), decided(other, verdict).manifest, other) is None
    last = planned(recipe())[-1]
    assert next_of(last, decided(MemoryStore(), "promote").manifest, store) is None


def test_kubeflow_passes_the_next_recipe_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    monkeypatch.setattr("moaa.stages.rounds.Store.of", lambda address, reached=False: store)
    monkeypatch.setattr("moaa.task.Store", lambda folder: store)
    text = decided(store, "promote").manifest.to_text()
    verdict, address = kept_next(Task(GATED + "rounds: 2\n", "r"), text)
    assert verdict == "promote"
    assert Task(address, "r").load().recipe.rounds.round == 2
    assert kept_next(Task(GATED, "r"), text) == ("promote", "")


def test_a_winner_is_served_in_the_stage_s_own_pod_and_judged_by_its_first_licence() -> None:
    path = ROOT / "pipelines/recipes/self-improve.yaml"
    first, second, _ = planned(load_file(path, ["runtime.engines.kind=kubernetes"]).recipe)
    before, after = (fields(each, [GENERATE, EVALUATE]) for each in (first, second))
    assert before["stages.generate.kind"] == "light"
    assert after["stages.generate.kind"] == "serve"
    assert [use.licence for use in findings(second).uses if use.model == second.target] == ["gemma"]


def test_the_judge_of_the_preferences_keeps_its_name() -> None:
    first, second, _ = planned(recipe())
    assert part_of(second).preferences_judge == part_of(first).preferences_judge


def test_a_local_run_goes_on_until_a_round_is_not_won(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    store, ran = MemoryStore(), []
    monkeypatch.setattr("moaa.pipelines.local.Store.of", lambda address: store)

    def execute(file: Path, stages: Sequence[Declaration], run_id: str, folder: Path) -> str:
        number = load_file(file).recipe.rounds.round
        ran.append((number, PREFLIGHT in stages))
        found = decided(MemoryStore() if number > 1 else store, "refuse" if number > 1 else WON)
        record = {
            "stage": "gate",
            "status": "done",
            "started": "2026-01-01T00:00:00.000+00:00",
            "manifest": found.manifest.model_dump(),
        }
        where = records.address(store, run_id, "gate", number)
        store.put(where, records.to_json(cast("records.Record", record)))
        return ""

    monkeypatch.setattr(local, "_execute", execute)
    first = tmp_path / "recipe.yaml"
    first.write_text(text_of(recipe()))
    assert local._rounds(recipe(), first, of_recipe(recipe()), "r") == ""
    assert ran == [(1, True), (2, False)]
    assert load_file(tmp_path / "recipe-2.yaml").recipe.target == "m+round-1"
