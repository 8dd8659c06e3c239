"""The stage gate, and `moaa gate`: a decision from the tables of an evaluation."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from moaa import records
from moaa.artifacts import Artifact, Draft, Output
from moaa.commands import decision
from moaa.errors import MoaaError, RecipeError
from moaa.recipe.gate import Gate
from moaa.recipe.load import load_file
from moaa.records import Record
from moaa.report import RunView, build, stage_markdown
from moaa.stages.gate import decide, gate, part_of
from moaa.stages.table import GATE, of_recipe, stages
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.publishing import evaluation

pytestmark = pytest.mark.usefixtures("few_resamples")
LENIENT = "gate={min_prompts: 10, more: {truncated: 1, empty: 1, repeated: 1, refused: 1}}"


def scores(
    store: MemoryStore,
    won: int = 32,
    prompts: int = 40,
    *,
    contestants: Sequence[str] = ("base", "sft", "dpo"),
    judge: str = "mixture of a, b and c",
    ifbench: dict[str, Any] | None = None,
) -> Artifact:
    """An evaluation in which dpo wins so many prompts against base."""
    with Output(store, f"{store.root}/evaluate/x", "scores") as out:
        for number in range(prompts):
            about = {"id": str(number), "benchmark": "head_to_head", "group": "s"}
            for model in ("base", "dpo"):
                text = f"The answer of {model} to question {number}." + " More." * (number % 5)
                answer = {"model": model, "turn": 1, "text": text, "tokens": 9}
                out.write(about | answer | {"messages": [], "finish_reason": "stop"}, "answers")
            p = 0.9 if number < won else 0.1
            orders = [{"verdict": verdict} for verdict in "AB"]
            pair = {"model_a": "dpo", "model_b": "base", "p": p, "orders": orders, "lost": []}
            out.write(about | pair, "judgements")
        head = {"judge": f"{judge}, all criteria", "judge_members": judge}
        found: dict[str, Any] = {"head_to_head": {**head, "failed": "", "failures": {}}}
        if ifbench:
            found["ifbench"] = {"judge": "", "failed": "", "failures": {}, **ifbench}
        draft = Draft(
            stage="evaluate",
            name="n",
            fingerprint="x",
            part={"contestants": list(contestants)},
            facts={"benchmarks": found},
        )
        return Artifact(store, out.commit(draft))


def decided(store: MemoryStore, measured: Artifact, *sets: str) -> Artifact:
    recipe = load_file(DEMO, [LENIENT, *sets]).recipe
    manifest, _ = gate.run(recipe, store, {"scores": measured})
    return Artifact(store, manifest)


def test_the_decision_is_an_artifact() -> None:
    store = MemoryStore()
    found = decided(store, scores(store))
    decision = found.manifest.facts["decision"]
    assert (decision["verdict"], decision["against"]) == ("promote", "base"), decision["why"]
    rows = list(found.rows())
    assert [row["rule"] for row in rows][:3] == ["wins", "wins at equal length", "length"]
    assert rows[0]["estimate"]["n"] == 40
    assert GATE.headline({}, found.manifest.facts) == "promote: dpo against base"


def test_production_is_what_it_must_beat_if_it_was_measured() -> None:
    measured = scores(MemoryStore(), contestants=("base", "production", "dpo"))
    part = part_of(load_file(DEMO, [LENIENT]).recipe)
    assert decide(part, measured).against == "production"


def test_made_evaluations_of_the_cluster_tests_have_all_that_the_gate_reads() -> None:
    """They lacked a field that real ones have: seen only where a cluster was at hand."""
    made = evaluation(MemoryStore(), 1, won=40)
    assert decide(part_of(load_file(DEMO, [LENIENT]).recipe), made).verdict == "promote"


def test_a_model_that_was_not_measured_is_an_error_that_names_those_that_were() -> None:
    measured = scores(MemoryStore(), contestants=("base", "sft"))
    with pytest.raises(RecipeError, match="'dpo' was not measured; the evaluation has base, sft"):
        decide(part_of(load_file(DEMO, [LENIENT]).recipe), measured)


def test_a_benchmark_that_failed_is_missing_and_nothing_is_promoted() -> None:
    store = MemoryStore()
    failed = {"failed": "its questions cannot be read"}
    decision = decided(store, scores(store, ifbench=failed)).manifest.facts["decision"]
    assert decision["verdict"] == "undecided"
    assert "ifbench (not measured: its questions cannot be read)" in decision["why"]


@pytest.mark.parametrize("who", ["dpo", "base"])
def test_a_candidate_or_a_base_without_a_score_is_missing_and_nothing_is_promoted(who: str) -> None:
    store = MemoryStore()
    one = {"failures": {who: "294 of 294 rows were lost", "sft": "not of this comparison"}}
    decision = decided(store, scores(store, ifbench=one)).manifest.facts["decision"]
    assert decision["verdict"] == "undecided", decision["why"]
    assert f"ifbench (not measured: {who}: 294 of 294 rows were lost)" in decision["why"]


def test_a_contestant_that_is_not_compared_may_have_failed() -> None:
    store = MemoryStore()
    measured = scores(store, ifbench={"failures": {"sft": "294 of 294 rows were lost"}})
    decision = decided(store, measured).manifest.facts["decision"]
    assert "294 of 294" not in decision["why"]


def test_the_judge_of_the_preferences_is_known_by_its_models_whatever_its_settings() -> None:
    recipe = load_file(DEMO, [LENIENT]).recipe
    store, name = MemoryStore(), part_of(recipe).preferences_judge
    same = decided(store, scores(store, judge=name)).manifest.facts["decision"]["findings"][-1]
    assert same["rule"] == "held-out judge"
    assert "also made the preferences" in same["about"]


def test_a_recipe_without_a_gate_has_no_such_stage() -> None:
    without, with_gate = load_file(DEMO).recipe, load_file(DEMO, [LENIENT]).recipe
    assert GATE not in of_recipe(without)
    assert of_recipe(with_gate)[-1] == GATE
    with pytest.raises(RecipeError, match=r"has no stage 'gate'.*`gate: \{\}`"):
        of_recipe(without, "gate")


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["evaluate.benchmarks.head_to_head=null"], "compares two models head to head"),
        (["evaluate.contestants=[base, sft]"], "'dpo' is not measured"),
        (["gate.against=production"], "'production' is not measured"),
        (["gate.against=dpo"], "it is the candidate itself"),
    ],
)
def test_a_gate_that_could_not_decide_is_refused_with_the_recipe(
    sets: list[str], message: str
) -> None:
    with pytest.raises(RecipeError, match=message):
        load_file(DEMO, [LENIENT, *sets])


def record(stage: str, manifest: Any) -> Record:
    """A record as a stage leaves it."""
    return {
        "run_id": "r",
        "stage": stage,
        "status": "done",
        "started": "2026-01-01T00:00:00+00:00",
        "ended": "2026-01-01T00:00:01+00:00",
        "seconds": 1.0,
        "manifest": json.loads(manifest.to_text()),
        "error": None,
        "ledger": {},
    }


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> MemoryStore:
    """The store of the run `r`, which was evaluated and not decided."""
    store = MemoryStore()
    evaluated = records.to_json(record("evaluate", scores(store).manifest))
    store.put(f"{store.root}/runs/r/evaluate.json", evaluated)

    @contextmanager
    def chosen(*_: Any) -> Iterator[tuple[MemoryStore, str, list[Record]]]:
        yield store, "r", records.read(store, "r")

    monkeypatch.setattr(decision, "chosen_run", chosen)
    return store


@pytest.mark.parametrize(
    ("sets", "status", "verdict"),
    [
        (["gate.more={truncated: 1, empty: 1, repeated: 1, refused: 1}"], 0, "promote"),
        (["gate.margin=0.45"], 3, "refuse"),
        (["gate.min_prompts=100"], 4, "undecided"),
    ],
)
def test_moaa_gate_decides_again_under_other_rules(
    run: MemoryStore,
    capsys: pytest.CaptureFixture[str],
    sets: list[str],
    status: int,
    verdict: str,
) -> None:
    assert decision.decide(None, None, None, sets, as_json=False) == status
    assert capsys.readouterr().out.startswith(f"{verdict}: dpo against base, run r")
    assert decision.decide(None, None, None, sets, as_json=True) == status
    assert json.loads(capsys.readouterr().out)["verdict"] == verdict


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["gate.floor=much"], '--set gate.floor is "much". It must be a number'),
        (["dpo.beta=0.1"], "only fields of the gate can be set"),
        (
            ["gate.nosuch=1"],
            r"--set gate\.nosuch is not a known field\. Fields here: ",
        ),
        (["gate.floor.x=1"], "gate.floor has no 'x' in it"),
    ],
)
def test_rules_that_are_none_are_refused(sets: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        decision.rules(Gate(), sets)


def test_a_run_without_scores_says_so(run: MemoryStore) -> None:
    run.delete_prefix(f"{run.root}/runs/r/")
    with pytest.raises(MoaaError, match="the run r has no scores"):
        decision.decide(None, None, None, [], as_json=False)


def test_the_report_and_kubeflows_page_show_the_rules(run: MemoryStore) -> None:
    made = record("gate", decided(run, scores(MemoryStore())).manifest)
    page = build(RunView.of([made], stages()), run)
    assert "wins at equal length" in page
    assert 'href="#gate"' in page
    assert "wins at equal length" in stage_markdown(made, GATE)
    assert 'href="#gate"' not in build(RunView.of([], stages()), run)
