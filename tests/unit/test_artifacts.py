"""Artifacts on a store in memory: what is written is what is read, and what is broken is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from moaa.artifacts import Artifact, Draft, File, Manifest, Output, Parent
from moaa.artifacts import output as module
from moaa.errors import ArtifactError, StoreError
from moaa.store import Missing
from tests.support.artifacts import add_file

URI = "s3://moaa/demo/generate/f00d"
DRAFT = Draft(stage="generate", name="test", fingerprint="f00d")
ROWS: list[dict[str, Any]] = [
    {"id": "a", "text": "plain", "turns": []},
    {
        "id": "b",
        "text": "漢字 é \u2028 \x00 \n",
        "turns": [{"n": 1, "none": None}, {"other": [1.5, True, -0.0, 1e300]}],
    },
    {"id": "c", "half a surrogate pair": "x\ud83d"},
    {"text": "no id", "big": 2**70},
    {"id": 7},
]


def write(store: Any, rows: list[dict[str, Any]], uri: str = URI) -> Manifest:
    with Output(store, uri, "sft-data") as out:
        for row in rows:
            out.write(row)
        return out.commit(DRAFT)


def test_rows_come_back_exactly_and_in_order(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", 2)
    manifest = write(store, ROWS * 3)
    assert list(Artifact.open(store, URI).rows()) == ROWS * 3
    assert manifest.rows == {"data": 15}
    assert [file.rows for file in manifest.files] == [2] * 7 + [1]


def test_large_rows_are_cut_to_shards_by_size(store: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SHARD_BYTES", 10_000)
    manifest = write(
        store, [{"text": "é" * 3000}] * 4
    )  # 6,000 bytes each: two a shard, though 3,000 characters
    assert [file.rows for file in manifest.files] == [2, 2]


def test_tables_are_apart_and_a_table_without_rows_gives_none(store: Any) -> None:
    with Output(store, URI, "test") as out:
        out.write({"id": "kept"})
        out.write({"id": "bad", "reason": "too few proposals"}, table="rejected")
        manifest = out.commit(replace(DRAFT, facts={"n": 1}))
    artifact = Artifact.open(store, URI)
    assert list(artifact.rows()) == [{"id": "kept"}]
    assert list(artifact.rows("rejected")) == [{"id": "bad", "reason": "too few proposals"}]
    assert list(artifact.rows("judgements")) == []
    assert manifest.rows == {"data": 1, "rejected": 1}


def test_the_manifest_is_written_last_and_opens_from_its_text(store: Any) -> None:
    manifest = write(store, ROWS)
    assert [uri for request, uri in store.log if request == "put"][-1] == f"{URI}/manifest.json"
    artifact = Artifact.open(store, manifest.to_text())
    assert artifact.manifest == Artifact.open(store, f"{URI}/").manifest == manifest
    assert (artifact.uri, artifact.fingerprint) == (URI, "f00d")
    parent = Parent.of("prompts", artifact.manifest)
    assert (parent.name, parent.kind, parent.uri, parent.fingerprint) == (
        "prompts",
        "sft-data",
        URI,
        "f00d",
    )


def test_a_prefix_without_a_manifest_is_no_artifact(store: Any) -> None:
    with Output(store, URI, "test") as out:
        out.write({"id": "a"})
    with pytest.raises(Missing, match="unfinished"):
        Artifact.open(store, URI)


def test_a_failed_upload_leaves_no_manifest(store: Any) -> None:
    store.fail_puts = 1
    with pytest.raises(StoreError, match="told to fail"):
        write(store, ROWS)
    assert f"{URI}/manifest.json" not in store.objects


def test_the_second_to_commit_gets_the_first_ones_manifest_and_damages_nothing(
    store: Any, tmp_path: Path
) -> None:
    (tmp_path / "weights").write_bytes(b"first")
    (tmp_path / "other").write_bytes(b"second")
    with Output(store, URI, "test") as one, Output(store, URI, "test") as two:
        one.write({"id": "same"})
        add_file(one, tmp_path / "weights", "model.safetensors")
        two.write({"id": "same"})
        two.write({"id": "differs"}, table="rejected")
        add_file(two, tmp_path / "other", "model.safetensors")
        winner = one.commit(DRAFT)
        assert two.commit(DRAFT) == winner
    artifact = Artifact.open(store, URI)
    assert list(artifact.rows()) == [{"id": "same"}]
    assert (artifact.download(tmp_path / "down") / "model.safetensors").read_bytes() == b"first"
    kept = {f"{URI}/{file.path}" for file in winner.files} | {f"{URI}/manifest.json"}
    assert set(store.objects) == kept


def _cut(data: bytes) -> bytes:
    return data[:-1]


def _flip(data: bytes) -> bytes:
    return data[:100] + bytes([data[100] ^ 1]) + data[101:]


@pytest.mark.parametrize(
    ("damage", "word"), [(_cut, "bytes"), (_flip, "digest"), (None, "is missing")]
)
def test_a_broken_shard_is_named_before_any_of_its_rows_is_given(
    store: Any, monkeypatch: pytest.MonkeyPatch, damage: Any, word: str
) -> None:
    monkeypatch.setattr(module, "SHARD_ROWS", 2)
    manifest = write(store, ROWS)
    broken = f"{URI}/{manifest.files[1].path}"
    if damage:
        store.objects[broken] = damage(store.objects[broken])
    else:
        del store.objects[broken]
    given: list[dict[str, Any]] = []
    with pytest.raises(ArtifactError, match=word) as caught:
        given.extend(Artifact.open(store, URI).rows())
    assert broken in str(caught.value)
    assert given == ROWS[:2]


def test_download_verifies_repairs_and_does_not_fetch_twice(store: Any, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    with Output(store, URI, "test") as out:
        add_file(out, tmp_path / "config.json", "sub/config.json")
        out.write({"id": "a"})
        manifest = out.commit(DRAFT)
    artifact = Artifact.open(store, URI)
    folder = artifact.download(tmp_path / "down")
    assert (folder / "sub" / "config.json").read_text() == "{}"
    store.log.clear()
    artifact.download(folder)
    assert store.log == []
    (folder / "sub" / "config.json").write_text("[]")
    artifact.download(folder)
    assert (folder / "sub" / "config.json").read_text() == "{}"
    [key] = [f"{URI}/{file.path}" for file in manifest.files if file.name == "sub/config.json"]
    store.objects[key] = b"[]"
    with pytest.raises(ArtifactError, match=key):
        artifact.download(tmp_path / "again")
    assert not (tmp_path / "again" / "sub" / "config.json").exists()


def test_a_text_file_is_read_as_it_was_written_or_not_at_all(store: Any, tmp_path: Path) -> None:
    path = tmp_path / "note.txt"
    path.write_text("as judged")
    with Output(store, URI, "model") as out:
        add_file(out, path, "note.txt")
        found = Artifact(store, out.commit(DRAFT))
    assert found.text("note.txt") == "as judged"
    with pytest.raises(Missing, match=f"{URI} has no other.txt"):
        found.text("other.txt")
    (file,) = found.manifest.files
    store.put(f"{URI}/{file.path}", b"as forged")
    with pytest.raises(ArtifactError, match=r"/note\.txt has the digest"):
        found.text("note.txt")
    store.delete(f"{URI}/{file.path}")
    with pytest.raises(ArtifactError, match=r"/note\.txt is missing"):
        found.text("note.txt")


def test_adopted_files_must_be_there_in_their_size(store: Any) -> None:
    store.put(f"{URI}/model.safetensors", b"12345")
    right = File(name="model.safetensors", size=5, sha256="0" * 64)
    with Output(store, URI, "test") as out:
        with pytest.raises(ArtifactError, match=r"model.safetensors should have 6 bytes and has 5"):
            out.adopt([right.model_copy(update={"size": 6})])
        with pytest.raises(ArtifactError, match=r"absent should have 5 bytes and is missing"):
            out.adopt([right.model_copy(update={"name": "absent"})])
        out.adopt([right])
        assert out.commit(DRAFT).files == (right,)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\\..\\x", "a//b", "./a"])
def test_no_name_in_a_manifest_leads_out_of_its_folder(store: Any, name: str) -> None:
    manifest = json.loads(write(store, []).to_text()) | {
        "files": [{"name": name, "size": 1, "sha256": ""}]
    }
    with pytest.raises(ArtifactError, match="not a plain relative path"):
        Artifact.open(store, json.dumps(manifest))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"schema_version": 2}', "schema version 2, this moaa reads 1"),
        ('{"schema_version": 1, "kind": "x"}', "stage: Field required"),
        ("{torn", "not a manifest"),
    ],
)
def test_what_is_no_manifest_is_said_to_be_none(store: Any, text: str, says: str) -> None:
    with pytest.raises(ArtifactError, match=says):
        Artifact.open(store, text)


@pytest.mark.parametrize(
    "name",
    ["a\x00b", "a\nb", "a\x1b[2Jb", "a\u202eb", "half \ud83d", "", ".", ".git/hooks/x", "x" * 256],
)
def test_no_name_in_a_manifest_is_read_as_something_else(store: Any, name: str) -> None:
    """NUL ended in a traceback; the others reached a file system or a terminal."""
    manifest = json.loads(write(store, []).to_text()) | {
        "files": [{"name": name, "size": 1, "sha256": ""}]
    }
    with pytest.raises(ArtifactError, match="not a plain relative path"):
        Artifact.open(store, json.dumps(manifest))


def changed(store: Any, **fields: str) -> None:
    where = f"{URI}/manifest.json"
    store.objects[where] = json.dumps(json.loads(store.objects[where]) | fields).encode()


def test_a_manifest_that_names_another_bucket_is_not_followed(store: Any) -> None:
    """It was opened and its files downloaded from there, without a word."""
    write(store, ROWS)
    changed(store, uri="s3://attackers-bucket/evil")
    with pytest.raises(ArtifactError, match="is the manifest of s3://attackers-bucket/evil"):
        Artifact.open(store, URI)


def test_a_manifest_of_another_fingerprint_is_not_what_was_asked_for(store: Any) -> None:
    write(store, ROWS)
    changed(store, fingerprint="0bad")
    with pytest.raises(ArtifactError, match="has the fingerprint 0bad, not f00d"):
        Artifact.open(store, URI, "f00d")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"uri": "s3://attackers-bucket/evil"}, "which is not below s3://moaa/demo"),
        ({"uri": "s3://moaa/demo-2/generate/f00d"}, "which is not below s3://moaa/demo"),
        ({"name": "another recipe"}, "is not the manifest that was committed at"),
        ({"fingerprint": "0bad"}, "has the fingerprint f00d, not 0bad"),
    ],
)
def test_an_input_that_was_changed_on_its_way_is_refused(
    store: Any, fields: dict[str, str], says: str
) -> None:
    """Kubeflow's artifact store carries manifests between tasks; others may write there."""
    manifest = json.loads(write(store, ROWS).to_text())
    with pytest.raises(ArtifactError, match=says):
        Artifact.open(store, json.dumps(manifest | fields))
