"""What production was trained on is left out of sources that grow, and nothing else is."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moaa import registry
from moaa.artifacts import Artifact, Draft, Manifest, Output, Parent
from moaa.errors import ArtifactError, RecipeError
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.registry import Version, production
from moaa.registry.production import ProductionEntry
from moaa.stages.prompts import prompts
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.publishing import inputs
from tests.support.stage_run import NO_BENCHMARKS

WORDS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven")
OLD = f"How do whales sleep, {' '.join(WORDS)}, and why?"
NEAR = OLD.upper().replace("?", " !!")
"""The same words."""
NEW = "Who was Kant?"
REASON = "near a prompt that production was trained on"


class World:
    """A store with three sources; one of them, `used`, grows. `dpo` trained on what was there."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.give("evaluation/1", "Why is it dark?")
        self.give("preference/1", "What is yeast?")
        self.give("used/1", OLD)

    def give(self, name: str, *texts: str) -> None:
        rows = "".join(json.dumps({"prompt": text}) + "\n" for text in texts)
        self.store.objects[f"{self.store.root}/{name}.jsonl"] = rows.encode()

    def recipe(self, *sets: str, **sft: Any) -> Recipe:
        sources = {
            name: json.dumps([{"source": f"{self.store.root}/{folder}", **more}])
            for name, folder, more in (
                ("evaluation", "evaluation", {}),
                ("preference", "preference", {}),
                ("sft", "used", {"skip_trained": True, **sft}),
            )
        }
        given = [f"prompts.{name}={text}" for name, text in sources.items()]
        return load_file(DEMO, [*given, NO_BENCHMARKS, "gate={}", "publish={}", *sets]).recipe

    def run(self, **sft: Any) -> Manifest:
        return prompts.run(self.recipe(**sft), self.store, {})[0]

    def texts(self, manifest: Manifest, table: str = "sft") -> list[str]:
        return [row["turns"][0] for row in Artifact(self.store, manifest).rows(table)]

    def promote(self, version: str, trained: Manifest, target: str | None = None) -> str:
        """Put a version into production that was trained on these prompts."""
        given = inputs(self.store)
        with Output(self.store, f"{self.store.root}/dpo/{version}", "model") as out:
            parents = [Parent.of("prompts", trained)]
            draft = Draft(stage="dpo", name="demo", fingerprint=version, parents=parents)
            model = Artifact(self.store, out.commit(draft))
        recipe = self.recipe(*([f"models.smollm2.source={target}"] if target else []))
        decision = given["decision"].manifest.facts["decision"]
        found = registry.findings(recipe)
        made = Version.of(self.store, "demo", version)
        rounds = registry.rounds(recipe, model, made, "r")
        lineage = registry.lineage(recipe, "text", model, given["scores"], decision, found, rounds)
        lineage["artifacts"].append({"stage": "sft"})
        registry.write_version(made, model, {registry.LINEAGE: json.dumps(lineage)}, {})
        entry = ProductionEntry(version=version, uri=made.uri, why="a test")
        production.move(self.store, "demo", entry)
        return made.uri


@pytest.fixture
def world() -> World:
    return World()


def test_before_the_first_promotion_nothing_is_left_out(world: World) -> None:
    found = world.run()
    assert world.texts(found) == [OLD]
    assert found.ledger["rejected"] == {}


def test_only_what_is_new_is_kept_and_the_rest_is_counted(world: World) -> None:
    world.promote("v1", world.run())
    world.give("used/2", NEAR, NEW)
    found = world.run()
    assert world.texts(found) == [NEW]
    assert found.ledger["rejected"] == {REASON: 2}
    details = [row["detail"] for row in Artifact(world.store, found).rows("rejected")]
    assert details == [f"like {row}" for row in [details[0].removeprefix("like ")] * 2]
    events = found.ledger["events"]
    assert events["prompts of production that others were compared with"] == 2


def test_other_sources_keep_what_production_was_trained_on(world: World) -> None:
    """The preference prompts are the same as before."""
    world.promote("v1", world.run())
    world.give("used/2", NEW)
    assert world.texts(world.run(), "preference") == ["What is yeast?"]
    assert world.texts(world.run(skip_trained=False)) == [OLD, NEW]


def test_a_preference_prompt_counts_as_trained_on(world: World) -> None:
    world.promote("v1", world.run())
    world.give("used/2", "What is yeast?", NEW)
    assert world.texts(world.run()) == [NEW]


def test_what_an_earlier_version_was_trained_on_counts_if_production_was_made_from_it(
    world: World,
) -> None:
    first = world.promote("v1", world.run())
    world.give("used/2", NEW)
    second = world.run()
    assert world.texts(second) == [NEW]
    world.promote("v2", second, target=first)
    world.give("used/3", "What are tides?")
    assert world.texts(world.run()) == ["What are tides?"]


def test_the_order_of_rows_and_the_fingerprint_change_only_with_production(world: World) -> None:
    before = world.run(skip_trained=False).fingerprint
    first = world.run()
    assert world.run().fingerprint == first.fingerprint
    assert first.fingerprint != before
    world.promote("v1", first)
    world.give("used/2", NEW, "What are tides?")
    second = world.run()
    assert world.texts(second) == [NEW, "What are tides?"]
    assert world.run().fingerprint == second.fingerprint


def test_a_run_that_is_repeated_after_its_promotion_has_the_same_prompts(world: World) -> None:
    world.promote("v1", world.run())
    world.give("used/2", NEW)
    second = world.run()
    world.promote("v2", second)
    again = world.run()
    assert again.uri == second.uri
    assert world.texts(again) == [NEW]


def test_a_lineage_that_cannot_be_read_is_no_empty_one(world: World) -> None:
    first = world.run()
    uri = world.promote("v1", first)
    world.give("used/2", NEW)
    world.store.delete(f"{first.uri}/manifest.json")
    with pytest.raises(ArtifactError, match=f"the prompts that {uri} was trained on cannot be"):
        world.run()


def test_a_changed_lineage_leaves_nothing_out_in_silence(world: World) -> None:
    uri = world.promote("v1", world.run())
    world.give("used/2", NEW)
    world.store.put(f"{uri}/lineage.json", b'{"artifacts": [], "models": [], "rounds": []}')
    with pytest.raises(ArtifactError, match=f"that {uri} was trained on cannot be read: .*bytes"):
        world.run()


@pytest.mark.parametrize(
    ("sets", "said"),
    [
        (["publish=null"], r"sft\[0\].skip_trained: it compares with the published model"),
        (["prompts.evaluation.0.skip_trained=true"], "evaluation prompts are never trained on"),
    ],
)
def test_where_it_can_do_nothing_the_recipe_is_refused(
    world: World, sets: list[str], said: str
) -> None:
    with pytest.raises(RecipeError, match=said):
        world.recipe(*sets)
