"""Published versions on the Hugging Face hub, by the hub's own library."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact
from moaa.errors import ArtifactError, RecipeError
from moaa.recipe.load import load_file
from moaa.stages.publish import publish
from tests.support import hub_repositories
from tests.support.hub_repositories import HubRepositories
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.publishing import WEIGHTS, inputs

# The hub's library sends large files so.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
TOKEN = "t0ken-of-mine"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubRepositories]:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # its protocol is a library's own
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with hub_repositories.serve() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.url)
        yield found


def published(
    store: MemoryStore, *sets: str, model: dict[str, bytes] | None = None
) -> dict[str, Any]:
    """The facts of the stage, with a repository for the model."""
    given = ["gate={}", "publish={hub: {repository: me/aligned}}", "runtime.secret_envs=[HF_TOKEN]"]
    recipe = load_file(DEMO, [*given, *sets]).recipe
    manifest, _ = publish.run(recipe, store, inputs(store, model=model))
    return {**manifest.facts, "events": manifest.ledger.get("events")}


def test_a_version_is_a_commit_with_a_tag(hub: HubRepositories) -> None:
    store = MemoryStore()
    facts = published(store)
    assert "hub" not in facts, "nothing went wrong"
    found = hub.repositories["models/me/aligned"]
    assert found.private
    uri = facts["published"]["uri"]
    names = {file.name for file in Artifact.open(store, uri).manifest.files}
    assert found.files == {name: store.get(f"{uri}/{name}") for name in names}
    assert list(found.tags) == [facts["published"]["version"]]
    assert hub.tokens == {f"Bearer {TOKEN}"}


def test_repeating_it_sends_nothing(hub: HubRepositories) -> None:
    store = MemoryStore()
    published(store)
    store.delete_prefix(f"{store.root}/publish/")
    published(store)
    found = hub.repositories["models/me/aligned"]
    assert (found.commits, hub.uploads) == (1, 1)


def test_killed_before_the_tag_the_next_attempt_sets_it_and_commits_nothing(
    hub: HubRepositories,
) -> None:
    store = MemoryStore()
    published(store)
    found = hub.repositories["models/me/aligned"]
    found.tags.clear()
    store.delete_prefix(f"{store.root}/publish/")
    facts = published(store)
    assert list(found.tags) == [facts["published"]["version"]]
    assert (found.commits, hub.uploads) == (1, 1)


def test_weights_of_an_earlier_version_leave_main_and_stay_at_its_tag(
    hub: HubRepositories,
) -> None:
    first = {"config.json": b"{}", "model-00001-of-00002.safetensors": b"1" + WEIGHTS}
    published(MemoryStore(), model=first)
    found = hub.repositories["models/me/aligned"]
    found.files["notes.md"] = b"somebody's own"
    published(MemoryStore(), "publish.accept_licence_conflict=another version")
    assert "model-00001-of-00002.safetensors" not in found.files
    assert found.files["notes.md"] == b"somebody's own"
    assert [sorted(name for name in files if "model" in name) for files in found.tags.values()] == [
        ["model-00001-of-00002.safetensors"],
        ["model.safetensors"],
    ]


def test_the_data_become_a_data_set(hub: HubRepositories) -> None:
    sets = ("publish.data=true", "publish.hub.data_repository=me/data", "publish.hub.private=false")
    facts = published(MemoryStore(), *sets)
    found = hub.repositories["datasets/me/data"]
    assert sorted(found.files) == [
        "README.md",
        "data/preference-00000.parquet",
        "data/sft-00000.parquet",
    ]
    assert list(found.tags) == [facts["published"]["version"]]
    assert not found.private


@pytest.mark.parametrize("status", [503, 429])
def test_a_hub_that_is_down_is_a_warning_and_the_next_run_makes_up_for_it(
    hub: HubRepositories, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    store = MemoryStore()
    hub.refuse = {"create": status}
    facts = published(store)
    assert facts["published"]
    assert str(status) in facts["hub"]
    assert facts["events"] == {"registries and hubs that do not show it: hub": 1}
    assert "is not on the hub as me/aligned" in caplog.text
    hub.refuse = {}
    again = published(store)
    assert "hub" not in again
    assert again["published"] == facts["published"]
    assert list(hub.repositories["models/me/aligned"].tags) == [again["published"]["version"]]


def test_a_hub_that_nobody_answers_for_is_a_warning(
    hub: HubRepositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    facts = published(MemoryStore())
    assert facts["published"]
    assert "ConnectError" in facts["hub"]


@pytest.mark.parametrize("where", ["create", "preupload", "commit", "tag"])
def test_a_refusal_is_an_error_that_loses_nothing(hub: HubRepositories, where: str) -> None:
    store = MemoryStore()
    hub.refuse = {where: 403}
    with pytest.raises(RecipeError, match=r"refuses the model me/aligned \(403\).*stays") as caught:
        published(store)
    assert TOKEN not in str(caught.value)
    (version,) = {uri.rpartition("/")[0] for uri, _ in store.list(f"{store.root}/models/demo")}
    assert Artifact.open(store, version).manifest.kind == "model"
    hub.refuse = {}
    assert published(store)["published"]["uri"] == version


def test_without_a_token_nothing_is_sent(
    hub: HubRepositories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    facts = published(MemoryStore())
    assert facts["published"]
    assert "HF_TOKEN is not set" in facts["hub"]
    assert not hub.tokens


def test_a_file_that_was_changed_on_s3_is_not_sent(hub: HubRepositories) -> None:
    store = MemoryStore()
    hub.refuse = {"create": 503}
    uri = published(store)["published"]["uri"]
    hub.refuse = {}
    store.put(f"{uri}/model.safetensors", b"other weights")
    with pytest.raises(ArtifactError, match="was changed"):
        published(store)
    assert hub.repositories["models/me/aligned"].commits == 0


def test_no_file_of_the_model_stays_on_this_disk(
    hub: HubRepositories, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    published(MemoryStore())
    assert not list(tmp_path.iterdir())
