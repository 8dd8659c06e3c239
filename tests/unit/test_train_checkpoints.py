"""Checkpoints on the store: complete or not there, only the newest, and resumed by those who can. Two ranks are two threads."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pytest

from moaa.errors import ArtifactError
from moaa.train.checkpoints import Checkpoints
from moaa.train.ranks import Elsewhere, Ranks
from tests.support.memory_store import MemoryStore

OUTPUT = "s3://memory/root/sft/3f"
PREFIX = f"{OUTPUT}/checkpoints"
SHAPE = {"world_size": 2, "zero_stage": 2, "precision": "bfloat16"}


@dataclass
class Meeting:
    """Where two threads exchange values, as ranks do by the network."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(2, timeout=10))
    values: list[Any] = field(default_factory=lambda: [None, None])


@dataclass(frozen=True)
class Threads(Ranks):
    meeting: Meeting = field(default_factory=Meeting)

    def gather(self, value):
        self.meeting.values[self.rank] = value
        self.meeting.barrier.wait()
        values = list(self.meeting.values)
        self.meeting.barrier.wait()
        return values


def two(work, store, folder, *, shape=SHAPE, steps=2):
    """Run `work(checkpoints)` on two ranks of one node, side by side."""
    meeting = Meeting()
    ranks = [Threads(rank, 2, rank, 2, meeting) for rank in (0, 1)]
    each = [Checkpoints(store, OUTPUT, rank, folder, shape, minutes=60, steps=steps) for rank in ranks]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, each))


def write(folder, step, content=b"state"):
    """What the trainer would write: a file of each rank, and one of rank 0."""
    for name in (f"global_step{step}/rank_0.pt", f"global_step{step}/rank_1.pt", "trainer_state.json"):
        path = folder / f"checkpoint-{step}" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content + name.encode())


def steps_until(last, folder, content=b"state"):
    """Train without a model: at each step ask whether a checkpoint is due, and write it."""

    def train(checkpoints):
        saved = []
        for step in range(1, last + 1):
            if checkpoints.due(step):
                if checkpoints.ranks.first:
                    write(folder, step, content)
                checkpoints.ranks.wait()
                checkpoints.saved(step)
                saved.append(step)
            checkpoints.finish()  # uploads are through before the next step
        return saved, checkpoints.failed

    return train


def test_a_checkpoint_is_complete_when_its_manifest_is_there_and_older_ones_are_gone(tmp_path):
    store = MemoryStore()
    both = two(steps_until(5, tmp_path), store, tmp_path)
    assert both == [([2, 4], 0)] * 2
    assert {uri.removeprefix(PREFIX).split("/")[1] for uri, _ in store.list(PREFIX)} == {"checkpoint-4"}
    manifest = json.loads(store.get(f"{PREFIX}/checkpoint-4/manifest.json"))
    assert (manifest["step"], manifest["shape"]) == (4, SHAPE)
    names = [file["name"] for file in manifest["files"]]
    assert names == ["global_step4/rank_0.pt", "global_step4/rank_1.pt", "trainer_state.json"]
    assert not list(tmp_path.iterdir()), "what is on the store needs no disk"


def test_the_manifest_is_written_last(tmp_path):
    store = MemoryStore()
    two(steps_until(3, tmp_path), store, tmp_path)
    puts = [uri for request, uri in store.log if request == "put"]
    assert puts[-1] == f"{PREFIX}/checkpoint-2/manifest.json"
    assert len(puts) == 4


def test_a_checkpoint_still_on_its_way_is_no_checkpoint(tmp_path):
    store = MemoryStore()
    assert two(steps_until(2, tmp_path), store, tmp_path)[0] == ([2], 0)
    assert list(store.list(PREFIX))
    assert two(Checkpoints.restore, store, tmp_path) == [None, None]


def test_the_newest_complete_one_is_restored_on_both_ranks_with_its_seconds(tmp_path):
    store = MemoryStore()
    two(steps_until(5, tmp_path / "a"), store, tmp_path / "a")
    store.put(f"{PREFIX}/checkpoint-6/trainer_state.json", b"torn")

    def restore(checkpoints):
        found = checkpoints.restore()
        return found["step"], found["path"], checkpoints.seconds_before == found["seconds"]

    folder = tmp_path / "b"
    assert two(restore, store, folder) == [(4, str(folder / "checkpoint-4"), True)] * 2
    assert (folder / "checkpoint-4/global_step4/rank_1.pt").read_bytes() == b"stateglobal_step4/rank_1.pt"


@pytest.mark.parametrize("other", [{"world_size": 4}, {"precision": "float32"}, {"zero_stage": 3}])
def test_a_checkpoint_of_another_shape_is_reported_and_not_loaded(other, tmp_path):
    store = MemoryStore()
    two(steps_until(3, tmp_path), store, tmp_path)
    found, _ = two(Checkpoints.restore, store, tmp_path / "b", shape=SHAPE | other)
    assert found["shape"] == SHAPE
    assert "path" not in found
    assert not (tmp_path / "b").exists()


def test_a_changed_file_is_an_error_that_names_it(tmp_path):
    store = MemoryStore()
    two(steps_until(3, tmp_path), store, tmp_path)
    changed = f"{PREFIX}/checkpoint-2/trainer_state.json"
    store.put(changed, b"something else")

    def restore(checkpoints):
        try:
            return checkpoints.restore()
        except (ArtifactError, Elsewhere) as error:
            return error

    leader, other = two(restore, store, tmp_path / "b")
    assert isinstance(leader, ArtifactError)
    assert changed in str(leader)
    assert isinstance(other, Elsewhere), "one rank speaks, the others end quietly"


def test_a_failed_upload_gives_up_this_checkpoint_and_keeps_the_one_before(tmp_path):
    store = MemoryStore()

    def train(checkpoints):
        saved = []
        for step in range(1, 8):
            if step == 4 and checkpoints.ranks.first:
                store.fail_puts = 1
            checkpoints.ranks.wait()
            if checkpoints.due(step):
                if checkpoints.ranks.first:
                    write(tmp_path, step)
                checkpoints.ranks.wait()
                checkpoints.saved(step)
                saved.append(step)
            checkpoints.finish()
            if step == 5:
                complete = [uri for uri, _ in store.list(PREFIX) if uri.endswith("manifest.json")]
                assert complete == [f"{PREFIX}/checkpoint-2/manifest.json"]
        return saved, checkpoints.failed

    assert two(train, store, tmp_path) == [([2, 4, 6], 1)] * 2
    found, _ = two(Checkpoints.restore, store, tmp_path / "b")
    assert found["step"] == 6


def test_nothing_is_written_while_the_one_before_is_on_its_way(tmp_path):
    store = MemoryStore()
    gate = threading.Event()
    upload = store.upload
    store.upload = lambda *args, **kwargs: (gate.wait(10), upload(*args, **kwargs))  # type: ignore[method-assign]

    def train(checkpoints):
        saved = []
        for step in range(1, 8):
            if step == 6 and checkpoints.ranks.first:
                gate.set()
            if step >= 6:
                checkpoints.finish()
            if checkpoints.due(step):
                if checkpoints.ranks.first:
                    write(tmp_path, step)
                checkpoints.ranks.wait()
                checkpoints.saved(step)
                saved.append(step)
        return saved

    assert two(train, store, tmp_path) == [[2, 6]] * 2


def test_all_are_deleted_when_the_training_is_done(tmp_path):
    store = MemoryStore()
    store.put(f"{OUTPUT}/result.json", b"{}")
    two(steps_until(5, tmp_path), store, tmp_path)
    Checkpoints(store, OUTPUT, Ranks(0, 1, 0, 1), tmp_path, SHAPE, minutes=60).delete()
    assert list(store.objects) == [f"{OUTPUT}/result.json"]


def test_minutes_decide_where_no_steps_are_given(tmp_path):
    store = MemoryStore()
    checkpoints = Checkpoints(store, OUTPUT, Ranks(0, 1, 0, 1), tmp_path, SHAPE, minutes=1)
    assert not checkpoints.due(1)
    checkpoints._last -= 61
    assert checkpoints.due(2)
    write(tmp_path, 2)
    checkpoints.saved(2)
    assert not checkpoints.due(3)
