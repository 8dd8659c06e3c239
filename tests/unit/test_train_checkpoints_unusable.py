"""Checkpoints that cannot be used are counted, and the newest usable one is taken."""

from __future__ import annotations

import hashlib
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moaa.train.checkpoint_files import holds_data_only, load_data_only
from tests.support.checkpoints import (
    PREFIX,
    SHAPE,
    Command,
    alone,
    committed,
    manifest_of,
    restored,
    steps_until,
    two,
)
from tests.support.memory_store import MemoryStore


@pytest.mark.parametrize("other", [{"world_size": 4}, {"precision": "float32"}, {"zero_stage": 3}])
def test_a_checkpoint_of_another_shape_is_counted_and_not_loaded(other, tmp_path):
    store = MemoryStore()
    two(steps_until(3, tmp_path), store, tmp_path)
    assert two(restored, store, tmp_path / "b", shape=SHAPE | other) == [(None, 1)] * 2
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_damaged_checkpoint_is_counted_and_the_next_newest_is_taken(harm, tmp_path):
    store = MemoryStore()
    older, newer = alone(store, tmp_path / "a"), alone(store, tmp_path / "b")
    committed(older, 2, b"older")
    committed(newer, 4, b"newer")
    damaged = manifest_of(store, 4).replace("manifest.json", "trainer_state.json")
    if harm == "changed":
        store.put(damaged, b"something else")
    else:
        store.delete(damaged)
    assert two(restored, store, tmp_path / "c") == [(2, 1)] * 2
    assert [path.name for path in (tmp_path / "c").iterdir()] == ["checkpoint-2"]
    store.delete(manifest_of(store, 2))
    assert two(restored, store, tmp_path / "d") == [(None, 1)] * 2
    assert not list((tmp_path / "d").iterdir()), "training begins anew, with the whole disk"


STATES = st.sampled_from(["good", "changed", "missing", "other shape"])


@settings(deadline=None)
@given(st.dictionaries(st.integers(1, 99), STATES, max_size=6))
def test_the_newest_usable_checkpoint_is_taken_and_each_unusable_newer_one_counted(found):
    """`found`: the state of the checkpoint of each step, each written by another attempt."""
    store = MemoryStore()
    for step, state in found.items():
        uri, content = f"{PREFIX}/attempt{step}/checkpoint-{step}", b"%d" % step
        listed = {
            "name": "state.pt",
            "size": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        shape = SHAPE | {"world_size": 8 if state == "other shape" else 2}
        manifest = {"step": step, "shape": shape, "seconds": 1.0, "files": [listed]}
        store.put(f"{uri}/manifest.json", json.dumps(manifest).encode())
        if state != "missing":
            store.put(f"{uri}/state.pt", b"x" if state == "changed" else content)
    good = [step for step, state in found.items() if state == "good"]
    expected = max(good, default=None)
    with tempfile.TemporaryDirectory() as folder:
        step, unusable = restored(alone(store, Path(folder)))
        left = [path.name for path in Path(folder).iterdir()]
    assert step == expected
    assert unusable == sum(step > (expected or 0) for step in found)
    assert left == ([f"checkpoint-{expected}"] if good else [])


def planted(store, files, name, step=9):
    """A checkpoint that somebody else wrote into the bucket."""
    uri = f"{PREFIX}/attacker/checkpoint-{step}"
    listed = []
    for path, content in files.items():
        store.put(f"{uri}/{path}", content)
        listed.append(
            {
                "name": name,
                "key": path,
                "size": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        )
    manifest = {"schema_version": 1, "step": step, "shape": SHAPE, "seconds": 1.0, "files": listed}
    store.put(f"{uri}/manifest.json", json.dumps(manifest).encode())


@pytest.mark.parametrize("name", ["../../OUTSIDE.txt", "/tmp/OUTSIDE.txt", "a/../../OUTSIDE.txt"])
def test_no_file_of_a_checkpoint_is_written_outside_of_its_folder(name, tmp_path):
    store = MemoryStore()
    planted(store, {"x": b"evil"}, name)
    folder = tmp_path / "scratch"
    assert restored(alone(store, folder)) == (None, 1)
    assert list(tmp_path.rglob("*")) == [folder]


@pytest.mark.parametrize(
    "text", [b"{", b"[]", b"null", b"{}", b'{"step": -1}', b"[" * 100_000, b"\xff"]
)
def test_a_manifest_that_is_none_is_counted_and_the_next_checkpoint_used(text, tmp_path):
    store = MemoryStore()
    planted(store, {"state.pt": b"good"}, "state.pt")
    store.put(f"{PREFIX}/attacker/checkpoint-10/manifest.json", text)
    checkpoints = alone(store, tmp_path)
    assert checkpoints.restore().step == 9
    assert checkpoints.unusable == 0, "it comes last, and was not tried"
    store.delete(f"{PREFIX}/attacker/checkpoint-9/manifest.json")
    assert restored(alone(store, tmp_path)) == (None, 1)


def test_a_checkpoint_that_would_run_a_command_is_counted_and_never_loaded(tmp_path, monkeypatch):
    import torch

    trace, made = tmp_path / "it-ran", tmp_path / "made.pt"
    torch.save({"module": Command(trace)}, made)
    store = MemoryStore()
    planted(store, {"mp_rank_00_model_states.pt": made.read_bytes()}, "mp_rank_00_model_states.pt")
    assert restored(alone(store, tmp_path / "scratch", loadable=holds_data_only)) == (None, 1)
    assert not list((tmp_path / "scratch").iterdir())
    monkeypatch.setenv("TORCH_FORCE_WEIGHTS_ONLY_LOAD", "0")  # restored afterwards
    load_data_only()
    with pytest.raises(Exception, match="weights_only"):
        torch.load(made, weights_only=False)  # as DeepSpeed does
    assert not trace.exists()
