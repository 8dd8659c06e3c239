"""Checkpoints of a training: complete, restored, and replaced by newer ones."""

from __future__ import annotations

import json

from moaa.train.checkpoints import Checkpoints
from moaa.train.ranks import Ranks
from tests.support.checkpoints import (
    OUTPUT,
    PREFIX,
    SHAPE,
    alone,
    committed,
    manifest_of,
    restored,
    saved,
    steps_until,
    two,
    write,
)
from tests.support.memory_store import MemoryStore


def test_a_checkpoint_is_complete_when_its_manifest_is_there_and_older_ones_are_gone(tmp_path):
    store = MemoryStore()
    both = two(steps_until(5, tmp_path), store, tmp_path)
    assert both == [([2, 4], 0)] * 2
    ((attempt, name),) = {
        tuple(uri.removeprefix(PREFIX).split("/")[1:3]) for uri, _ in store.list(PREFIX)
    }
    assert (len(attempt), name) == (8, "checkpoint-4"), "both ranks wrote below one attempt"
    manifest = json.loads(store.get(f"{PREFIX}/{attempt}/checkpoint-4/manifest.json"))
    assert (manifest["step"], manifest["shape"]) == (4, SHAPE)
    names = [file["name"] for file in manifest["files"]]
    assert names == ["global_step4/rank_0.pt", "global_step4/rank_1.pt", "trainer_state.json"]
    assert not list(tmp_path.iterdir()), "what is on the store needs no disk"


def test_the_manifest_is_written_last(tmp_path):
    store = MemoryStore()
    two(steps_until(3, tmp_path), store, tmp_path)
    puts = [uri for request, uri in store.log if request == "put"]
    assert puts[-1].endswith("/checkpoint-2/manifest.json")
    assert len(puts) == 4


def test_a_checkpoint_still_on_its_way_is_no_checkpoint(tmp_path):
    store = MemoryStore()
    assert two(steps_until(2, tmp_path), store, tmp_path)[0] == ([2], 0)
    assert list(store.list(PREFIX))
    assert two(Checkpoints.restore, store, tmp_path) == [None, None]


def test_the_newest_complete_one_is_restored_on_both_ranks_with_its_seconds(tmp_path):
    store = MemoryStore()
    two(steps_until(5, tmp_path / "a"), store, tmp_path / "a")
    store.put(f"{PREFIX}/another/checkpoint-6/trainer_state.json", b"torn")

    def restore(checkpoints):
        found = checkpoints.restore()
        return found.step, str(found.path), checkpoints.seconds_before > 0

    folder = tmp_path / "b"
    assert two(restore, store, folder) == [(4, str(folder / "checkpoint-4"), True)] * 2
    assert (
        folder / "checkpoint-4/global_step4/rank_1.pt"
    ).read_bytes() == b"stateglobal_step4/rank_1.pt"


def test_two_runs_at_the_same_training_leave_each_other_alone(tmp_path):
    """Two runs with the same fingerprint on two machines; each would be resumed from the newest of
    both."""
    store = MemoryStore()
    a, b = alone(store, tmp_path / "a"), alone(store, tmp_path / "b")
    saved(a, 4, b"a")
    saved(b, 2, b"b")
    b.due(3)  # commits, while a's upload is through and its manifest is not there yet
    a.due(5)
    assert two(restored, store, tmp_path / "c") == [(4, 0)] * 2
    saved(b, 4, b"another b")  # and is killed
    assert alone(store, tmp_path / "d").restore().step == 4
    assert (tmp_path / "d/checkpoint-4/trainer_state.json").read_bytes() == b"atrainer_state.json"


def test_what_was_resumed_from_goes_when_there_is_a_newer_one(tmp_path):
    store = MemoryStore()
    first, other = alone(store, tmp_path / "a"), alone(store, tmp_path / "b")
    committed(first, 4, b"a")
    committed(other, 2, b"b")
    resumed = alone(store, tmp_path / "c")
    assert resumed.restore().step == 4
    saved(resumed, 6, b"c")
    assert manifest_of(store, 4), "until then it is the one to resume from"
    resumed.due(7)
    assert {uri.removeprefix(PREFIX).split("/")[2] for uri, _ in store.list(PREFIX)} == {
        "checkpoint-2",
        "checkpoint-6",
    }, "and the other run's stays"


def test_a_checkpoint_that_another_attempt_replaces_meanwhile_is_no_reason_to_begin_anew(tmp_path):
    store = MemoryStore()
    at_work = alone(store, tmp_path / "a")
    committed(at_work, 2, b"older")
    resuming = alone(store, tmp_path / "b")
    download = resuming._downloaded

    def while_the_other_goes_on(uri, manifest):
        if manifest.step == 2:
            committed(at_work, 4, b"newer")
        return download(uri, manifest)

    resuming._downloaded = while_the_other_goes_on
    assert resuming.restore().step == 4


def test_what_was_restored_leaves_the_disk_once_it_is_loaded(tmp_path):
    store = MemoryStore()
    two(steps_until(5, tmp_path / "a"), store, tmp_path / "a")
    there = []

    def resume(checkpoints):
        folder = checkpoints.restore().path
        there.append(folder.exists())
        checkpoints.due(5)  # after the first step
        checkpoints.ranks.wait()
        there.append(folder.exists())

    two(resume, store, tmp_path / "b")
    assert sorted(there) == [False, False, True, True]


def test_minutes_decide_where_no_steps_are_given(tmp_path):
    store = MemoryStore()
    checkpoints = Checkpoints(store, OUTPUT, Ranks(0, 1, 0, 1), tmp_path, SHAPE, minutes=1)
    assert not checkpoints.due(1)
    checkpoints._last -= 61
    assert checkpoints.due(2)
    write(tmp_path, 2)
    checkpoints.saved(2)
    assert not checkpoints.due(3)
