"""The version in production as a contestant of the evaluation, and as what the gate compares
with."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from moaa import plan, registry
from moaa.artifacts import Artifact, Draft, Output
from moaa.errors import MoaaError
from moaa.ledger import Ledger
from moaa.placement import pods
from moaa.preflight.production import finding
from moaa.recipe.evaluation import PRODUCTION
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.registry import Version, production
from moaa.registry.production import ProductionEntry
from moaa.stages.gate import gate
from moaa.stages.production_version import content
from moaa.stages.table import EVALUATE, of_recipe
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.several_rounds import Rounds
from tests.support.stage_run import NO_BENCHMARKS

QUESTIONS = ("Why is the sky blue?", "What is the sea made of?")
PUBLISHING = ("gate={min_prompts: 2}", "publish={}")
SERVED = ("smollm2", "smollm2+sft", "smollm2+dpo", "smollm2+production")


def trained(store: MemoryStore, name: str, fingerprint: str) -> Artifact:
    with Output(store, f"{store.root}/{name}/{fingerprint}", "model") as out:
        return Artifact(store, out.commit(Draft(stage=name, name="n", fingerprint=fingerprint)))


def promoted(store: MemoryStore, model: Artifact) -> ProductionEntry:
    """This model as a version that is in production."""
    made = f"v-{model.fingerprint}"
    version = Version("demo", made, f"{store.root}/models/demo/{made}")
    registry.write_version(version, model, {}, {"model": model.fingerprint})
    entry = ProductionEntry(version=made, uri=version.uri, why="a test")
    production.move(store, "demo", entry)
    return entry


class Evaluations:
    """Evaluations of candidates against one engine."""

    def __init__(self, store: MemoryStore, server: EngineServer) -> None:
        self.store, self.server = store, server
        with Output(store, f"{store.root}/prompts/x", "prompts") as out:
            for number, question in enumerate(QUESTIONS):
                row = {"id": str(number), "source": "s", "system": None, "turns": [question]}
                out.write(row, table="evaluation")
            draft = Draft(stage="prompts", name="n", fingerprint="prompts")
            self.prompts = Artifact(store, out.commit(draft))

    def recipe(self, *sets: str) -> Recipe:
        url = f"models.smollm2.endpoint={{url: '{self.server.url}'}}"
        return load_file(DEMO, [url, NO_BENCHMARKS, *sets]).recipe

    def run(self, dpo: Artifact, *sets: str) -> tuple[Artifact, Ledger, bool]:
        stage: Any = importlib.import_module("moaa.stages.evaluate")
        inputs = {"prompts": self.prompts, "sft": trained(self.store, "sft", "s"), "dpo": dpo}
        ledger = Ledger()
        recipe = self.recipe(*(sets or PUBLISHING))
        manifest, reused = stage.evaluate.run(recipe, self.store, inputs, ledger)
        return Artifact(self.store, manifest), ledger, reused


@pytest.fixture
def evaluations(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The trained models are served where the target is."""
    stage: Any = importlib.import_module("moaa.stages.evaluate")
    monkeypatch.setattr(
        stage, "tuned", lambda target, name, model: (f"{name}+{model.manifest.stage}", target)
    )
    with EngineServer(*SERVED) as server:
        yield Evaluations(MemoryStore(), server)


def pairs(scores: Artifact) -> set[tuple[str, str]]:
    return {(row["model_a"], row["model_b"]) for row in scores.rows("judgements")}


def test_without_a_version_in_production_base_is_compared_with(evaluations: Any) -> None:
    scores, *_ = evaluations.run(trained(evaluations.store, "dpo", "first"))
    assert scores.manifest.facts["contestants"] == ["base", "sft", "dpo"]
    manifest, _ = gate.run(evaluations.recipe(*PUBLISHING), evaluations.store, {"scores": scores})
    assert manifest.facts["decision"]["against"] == "base"


def test_the_version_in_production_is_measured_and_compared_with(evaluations: Any) -> None:
    store, first = evaluations.store, trained(evaluations.store, "dpo", "first")
    evaluations.run(first)
    entry = promoted(store, first)
    scores, ledger, _ = evaluations.run(trained(store, "dpo", "second"))
    assert scores.manifest.facts["contestants"] == ["base", "production", "sft", "dpo"]
    assert ("dpo", "production") in pairs(scores)
    assert scores.manifest.part["content"]["production"] == entry.uri
    assert "smollm2+production" not in ledger.models, "it has answered as a candidate"
    manifest, _ = gate.run(evaluations.recipe(*PUBLISHING), store, {"scores": scores})
    assert manifest.facts["decision"]["against"] == "production"
    assert manifest.facts["against"] == entry.uri


def test_answers_under_other_settings_are_asked_again(evaluations: Any) -> None:
    store, first = evaluations.store, trained(evaluations.store, "dpo", "first")
    evaluations.run(first)
    promoted(store, first)
    other = (*PUBLISHING, "evaluate.sampling.max_tokens=17")
    _, ledger, _ = evaluations.run(trained(store, "dpo", "second"), *other)
    assert ledger.models["smollm2+production"].calls == len(QUESTIONS)


def test_a_pointer_that_moved_is_another_evaluation_and_a_repeated_run_is_the_same(
    evaluations: Any,
) -> None:
    """The run that put its own candidate there finds its evaluation again."""
    store = evaluations.store
    first, second, third = (trained(store, "dpo", name) for name in ("one", "two", "three"))
    promoted(store, first)
    before, *_ = evaluations.run(second)
    promoted(store, second)
    again, _, reused = evaluations.run(second)
    assert reused
    assert again.uri == before.uri
    moved, _, reused = evaluations.run(third)
    assert not reused
    assert moved.manifest.part["content"]["production"].endswith("/v-two")


def test_a_repeated_run_of_rounds_takes_none_of_its_own_winners_for_production(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each round came into production as soon as it had won."""
    rounds = Rounds(monkeypatch)
    store, recipe = rounds.store, rounds.recipe
    before = trained(store, "dpo", "earlier")
    uri = f"{store.root}/models/aligned/v0"
    registry.write_version(Version("aligned", "v0", uri), before, {}, {"model": before.fingerprint})
    production.move(store, "aligned", ProductionEntry(version="v0", uri=uri, why="a test"))

    def compared_with() -> list[str]:
        """What each round's candidate is measured beside, now."""
        winners = [{"dpo": winner} for winner in rounds.winners]
        return [content(recipe, store, each)[PRODUCTION] for each in winners]

    first_time = []
    for number in range(3):
        version = rounds.publish()
        first_time.append(compared_with()[number])
        entry = ProductionEntry(version=version.version, uri=version.uri, why="it has won")
        production.move(store, "aligned", entry)
    assert first_time[0] == uri
    assert compared_with() == first_time
    other = {"dpo": trained(store, "dpo", "of another run")}
    assert content(recipe, store, other)[PRODUCTION] == version.uri


@pytest.mark.parametrize("sets", [("gate={min_prompts: 2}",), ("runtime.calls.window=3",)])
def test_a_recipe_that_does_not_publish_measures_what_it_did(
    evaluations: Any, sets: tuple[str, ...]
) -> None:
    store, first = evaluations.store, trained(evaluations.store, "dpo", "first")
    before, *_ = evaluations.run(first, *sets)
    promoted(store, trained(store, "dpo", "other"))
    again, _, reused = evaluations.run(first, *sets)
    assert reused
    assert again.uri == before.uri
    assert (
        "content" not in before.manifest.part or "production" not in before.manifest.part["content"]
    )


def test_a_version_that_is_gone_is_said_before_and_in_the_run(evaluations: Any) -> None:
    store = evaluations.store
    entry = promoted(store, trained(store, "dpo", "first"))
    recipe = evaluations.recipe(*PUBLISHING)
    assert finding(recipe, store, "demo").ok
    store.delete(f"{entry.uri}/manifest.json")
    with pytest.raises(
        MoaaError, match="was put into production, but it is missing or not complete"
    ):
        evaluations.run(trained(store, "dpo", "second"))
    found = finding(recipe, store, "demo")
    assert not found.ok
    assert f"{entry.uri} was put into production, but it is missing or not complete" in found.detail


def test_preflight_says_what_the_candidate_is_compared_with() -> None:
    store, recipe = MemoryStore(), load_file(DEMO, PUBLISHING).recipe
    assert "base is compared with" in finding(recipe, store, "demo").detail
    entry = promoted(store, trained(store, "dpo", "first"))
    assert f"demo {entry.version} since 20" in finding(recipe, store, "demo").detail


def test_the_plan_and_the_pod_have_room_for_it() -> None:
    with_it, without = load_file(DEMO, PUBLISHING).recipe, load_file(DEMO).recipe
    lines = plan.lines(with_it, of_recipe(with_it))
    assert "smollm2+production" in {line.model for line in lines if line.stage == "evaluate"}
    assert len(pods.served(with_it, EVALUATE)) == len(pods.served(without, EVALUATE)) + 1
