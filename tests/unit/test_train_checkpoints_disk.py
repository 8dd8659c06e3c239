"""Checkpoints that find no room, or that do not arrive."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest

from moaa.errors import StoreError
from moaa.train.checkpoints import Checkpoints
from tests.support.checkpoints import (
    PREFIX,
    alone,
    committed,
    saved,
    two,
    write,
)
from tests.support.memory_store import MemoryStore


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


@pytest.mark.parametrize("error", [StoreError("refused"), RuntimeError("no more threads")])
def test_a_checkpoint_of_which_a_file_is_missing_is_never_complete(tmp_path, error):
    """After an error that nobody expected, the manifest listed the files before it."""
    store = MemoryStore()
    checkpoints, upload = alone(store, tmp_path), store.upload

    def upload_some(path, uri, **more):
        if path.name == "rank_1.pt":
            raise error
        upload(path, uri, **more)

    store.upload = upload_some  # type: ignore[method-assign]
    saved(checkpoints, 2, b"state")
    checkpoints.due(3)
    assert not [uri for uri, _ in store.list(PREFIX) if uri.endswith("manifest.json")]
    assert checkpoints.failed == 1


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
