"""Checkpoints on the store: complete or not there, the newest of each run, resumed by those who
can. Ranks are threads."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moaa.train.checkpoint_files import holds_data_only, load_data_only
from moaa.train.checkpoints import Checkpoints
from moaa.train.ranks import Ranks
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
    each = [
        Checkpoints(
            store, OUTPUT, rank, folder, shape, minutes=60, loadable=Path.exists, steps=steps
        )
        for rank in ranks
    ]
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, each))


def write(folder, step, content=b"state"):
    """What the trainer would write: a file of each rank, and one of rank 0."""
    for name in (
        f"global_step{step}/rank_0.pt",
        f"global_step{step}/rank_1.pt",
        "trainer_state.json",
    ):
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


@pytest.mark.parametrize("other", [{"world_size": 4}, {"precision": "float32"}, {"zero_stage": 3}])
def test_a_checkpoint_of_another_shape_is_counted_and_not_loaded(other, tmp_path):
    store = MemoryStore()
    two(steps_until(3, tmp_path), store, tmp_path)
    assert two(restored, store, tmp_path / "b", shape=SHAPE | other) == [(None, 1)] * 2
    assert not (tmp_path / "b").exists()


def restored(checkpoints):
    """The step that training would begin from, and how many checkpoints were of no use."""
    found = checkpoints.restore()
    return found and found.step, checkpoints.unusable


def saved(checkpoints, step, content):
    """One rank's checkpoint of `step`, uploaded but not committed yet: that is done at the next
    `due`."""
    assert checkpoints.due(step)
    write(checkpoints.folder, step, content)
    checkpoints.saved(step)
    checkpoints.finish()


def alone(store, folder, **options):
    folder.mkdir(exist_ok=True)
    return Checkpoints(
        store,
        OUTPUT,
        Ranks(0, 1, 0, 1),
        folder,
        SHAPE,
        **{"minutes": 60, "steps": 2, "loadable": Path.exists, **options},
    )


def committed(checkpoints, step, content):
    """As `saved`; with its manifest, which is written at the next step."""
    saved(checkpoints, step, content)
    checkpoints.due(step + 1)


def manifest_of(store, step):
    (uri,) = (
        uri for uri, _ in store.list(PREFIX) if uri.endswith(f"/checkpoint-{step}/manifest.json")
    )
    return uri


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


@dataclass
class Disk:
    free: int = 10**12


@pytest.fixture
def disk(monkeypatch):
    disk = Disk()
    monkeypatch.setattr("moaa.train.checkpoints.shutil.disk_usage", lambda folder: disk)
    return disk


def test_a_checkpoint_that_the_disk_has_no_room_for_is_given_up(tmp_path, disk, caplog):
    checkpoints = alone(MemoryStore(), tmp_path)
    saved(checkpoints, 2, b"state")
    disk.free = checkpoints.size - 1
    assert not checkpoints.due(4)
    assert "no checkpoint at step 4" in caplog.text
    assert not checkpoints.due(5), "it is tried again at the next interval"
    assert checkpoints.failed == 1
    disk.free = checkpoints.size
    assert checkpoints.due(6)


def test_the_first_is_measured_by_the_models_size_and_one_after_a_resume_by_the_last(
    tmp_path, disk
):
    store = MemoryStore()
    checkpoints = alone(store, tmp_path)
    checkpoints.expect(1000)
    disk.free = 13_999
    assert not checkpoints.due(2)
    assert checkpoints.failed == 1
    disk.free = 14_000
    committed(checkpoints, 4, b"state")
    resumed = alone(store, tmp_path / "b")
    resumed.restore()
    resumed.expect(1000)
    disk.free = 13_999
    assert resumed.due(6)


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
                assert [uri.split("/")[-2] for uri in complete] == ["checkpoint-2"]
        return saved, checkpoints.failed

    assert two(train, store, tmp_path) == [([2, 4, 6], 1)] * 2
    found, _ = two(Checkpoints.restore, store, tmp_path / "b")
    assert found.step == 6


def test_nothing_is_written_while_the_one_before_is_on_its_way(tmp_path):
    store = MemoryStore()
    gate = threading.Event()
    upload = store.upload
    store.upload = lambda *args, **kwargs: (gate.wait(10), upload(*args, **kwargs))  # type: ignore[method-assign,assignment]

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


def test_minutes_decide_where_no_steps_are_given(tmp_path):
    store = MemoryStore()
    checkpoints = Checkpoints(store, OUTPUT, Ranks(0, 1, 0, 1), tmp_path, SHAPE, minutes=1)
    assert not checkpoints.due(1)
    checkpoints._last -= 61
    assert checkpoints.due(2)
    write(tmp_path, 2)
    checkpoints.saved(2)
    assert not checkpoints.due(3)


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


def as_listed(name, content):
    """A file as a manifest lists it."""
    return {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}


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


class Command:
    """What a hostile pickle is: it runs a command when it is loaded."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


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
