"""Prompts that change are not taken for the old ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moaa.errors import HubAway, RecipeError
from moaa.prompts import sources
from moaa.recipe.schema import Recipe, Source
from moaa.stages.prompts import prompts
from moaa.store import Missing
from tests.support.changing import FIRST, SECOND, recipe
from tests.support.hub import Hub
from tests.support.memory_store import MemoryStore


def rows(*texts: str) -> bytes:
    return "".join(json.dumps({"prompt": text}) + "\n" for text in texts).encode()


def with_prompts(store: MemoryStore) -> Recipe:
    for name, text in (("e", "Why is it dark?"), ("p", "What is yeast?"), ("s", "Who was Kant?")):
        store.objects.setdefault(f"s3://moaa/p/{name}.jsonl", rows(text))
    return recipe(
        'prompts.evaluation=[{"source": "s3://moaa/p/e.jsonl"}]',
        'prompts.preference=[{"source": "s3://moaa/p/p.jsonl"}]',
        'prompts.sft=[{"source": "s3://moaa/p/s.jsonl"}]',
    )


def test_a_changed_prompt_file_on_s3_is_not_taken_for_the_old_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    store = MemoryStore()
    given = with_prompts(store)
    first, _ = prompts.run(given, store, {})
    again, reused = prompts.run(given, store, {})
    assert (reused, again.fingerprint) == (True, first.fingerprint)
    store.objects["s3://moaa/p/s.jsonl"] = rows("Who was Kant?", "Who was Hume?")
    second, reused = prompts.run(given, store, {})
    assert not reused
    assert second.fingerprint != first.fingerprint
    assert second.rows["sft"] == 2


def test_of_a_folder_on_s3_a_new_file_is_noticed() -> None:
    store = MemoryStore()
    source = Source(source="s3://moaa/folder")
    store.objects["s3://moaa/folder/a.jsonl"] = rows("a")
    before = sources.content(source, store)
    store.objects["s3://moaa/folder/README.md"] = b"not read"
    assert sources.content(source, store) == before
    store.objects["s3://moaa/folder/b.jsonl"] = rows("b")
    assert sources.content(source, store) != before


def test_a_prompt_file_that_is_gone_is_an_error_not_unchanged() -> None:
    store = MemoryStore()
    given = with_prompts(store)
    prompts.run(given, store, {})
    del store.objects["s3://moaa/p/s.jsonl"]
    with pytest.raises(Missing, match=r"s3://moaa/p/s\.jsonl' does not exist"):
        prompts.run(given, store, {})


def test_a_file_that_changes_while_it_is_read_is_not_filed_under_the_old_content(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    given = with_prompts(store)
    download = store.download

    def changing(uri: str, path: Path) -> None:
        store.objects[uri] += rows("One more?")
        download(uri, path)

    monkeypatch.setattr(store, "download", changing)
    with pytest.raises(RecipeError, match="changed while it was read"):
        prompts.run(given, store, {})
    assert not [uri for uri in store.objects if uri.endswith("manifest.json")]


def test_a_moved_revision_of_a_hub_data_set_is_noticed(hub: Hub) -> None:
    source = Source(source="hub:owner/name", revision="v1")
    hub.commits["datasets/owner/name"] = FIRST
    assert sources.content(source, MemoryStore()) == FIRST
    hub.commits["datasets/owner/name"] = SECOND
    assert sources.content(source, MemoryStore()) == SECOND
    assert hub.asked[0].startswith("/api/datasets/owner/name/revision/v1")


def test_a_commit_never_moves_and_is_not_asked_for(hub: Hub) -> None:
    source = Source(source="hub:owner/name", revision=FIRST)
    assert sources.content(source, MemoryStore()) == FIRST
    assert hub.asked == []


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_hub_that_cannot_say_it_is_an_error_not_unchanged(hub: Hub, status: int) -> None:
    hub.commits["datasets/owner/name"] = status
    with pytest.raises(HubAway, match=r"the hub \(127\.0\.0\.1\) does not answer"):
        sources.content(Source(source="hub:owner/name"), MemoryStore())


def test_a_hub_that_is_not_there_is_an_error_of_one_line(
    monkeypatch: pytest.MonkeyPatch, hub: Hub
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://user:secret@127.0.0.1:9")
    with pytest.raises(HubAway) as caught:
        sources.content(Source(source="hub:owner/name"), MemoryStore())
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("name", ["owner/unknown", "not a name at all!"])
def test_an_unknown_data_set_is_the_users_to_correct(hub: Hub, name: str) -> None:
    with pytest.raises(RecipeError, match="hub") as caught:
        sources.content(Source(source=f"hub:{name}"), MemoryStore())
    assert "\n" not in str(caught.value)


def test_offline_it_is_the_commit_in_the_cache(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("moaa.weights.revisions.cache", lambda: tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "none"))
    source = Source(source="hub:owner/name")
    with pytest.raises(RecipeError, match="HF_HUB_OFFLINE is set"):
        sources.content(source, MemoryStore())
    refs = tmp_path / "datasets--owner--name" / "refs"
    refs.mkdir(parents=True)
    (refs / "main").write_text(FIRST)
    assert sources.content(source, MemoryStore()) == FIRST


def test_a_single_file_of_a_data_set_is_read_at_its_commit(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    hub.commits["datasets/owner/name"] = FIRST
    hub.files[f"datasets/owner/name/resolve/{FIRST}/data/rows.csv"] = b'question,n\n"a, b",1\n'
    source = Source(source="hub:owner/name/data/rows.csv")
    assert sources.content(source, MemoryStore()) == FIRST
    assert list(sources.rows(source, MemoryStore())) == [{"question": "a, b", "n": "1"}]
    gone = Source(source="hub:owner/name/other.json", revision=SECOND)
    with pytest.raises(RecipeError, match="Check the name of the file"):
        list(sources.rows(gone, MemoryStore()))


def test_an_error_of_the_hubs_libraries_is_one_readable_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Only OSError and ValueError were: a data set made by a script ended in a traceback."""

    def fails(*args: object, **options: object) -> None:
        raise RuntimeError("Dataset scripts are no longer supported,\nbut found name.py")

    monkeypatch.setattr("datasets.load_dataset", fails)
    source = Source(source=f"hub:{tmp_path}")
    with pytest.raises(RecipeError, match="refs/convert/parquet") as caught:
        list(sources.rows(source, MemoryStore()))
    assert "\n" not in str(caught.value)


def test_unused_new_fields_of_a_source_change_no_fingerprint() -> None:
    assert "config" not in Source(source="a").model_dump(mode="json")
    assert "revision" not in Source(source="a").model_dump(mode="json")
    assert Source(source="a", config="b").model_dump(mode="json")["config"] == "b"
