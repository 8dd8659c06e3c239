"""A finished model outlives a store that is away."""

from __future__ import annotations

import json
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import StoreAway, StoreError
from moaa.recipe.schema import Sft, StoreAddress
from moaa.train import publish
from moaa.train.job import Job
from moaa.train.publish import Finished, UploadPatience
from moaa.train.run import finished_before
from tests.support.memory_store import MemoryStore

JOB = Job(
    kind="sft",
    numbers=Sft(),
    base="b",
    data="s3://b/d",
    output="s3://b/sft/3f",
    store=StoreAddress(root="s3://b"),
)
AT_ONCE = UploadPatience(total_s=0, pause_s=0)
LONG = UploadPatience(total_s=3600, pause_s=0)


class Away(MemoryStore):
    """A store that answers InternalError to the first requests to write."""

    def __init__(self, failures: int, error: type[StoreError] = StoreAway) -> None:
        super().__init__("s3://b")
        self.failures, self.error = failures, error

    def _fail(self) -> None:
        if self.failures > 0:
            self.failures -= 1
            raise self.error("http://store answered InternalError.")

    def upload(self, *args: Any, **more: Any) -> None:
        self._fail()
        super().upload(*args, **more)

    def put_new(self, *args: Any, **more: Any) -> bool:
        self._fail()
        return super().put_new(*args, **more)


@pytest.fixture
def finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Finished:
    """A model that was trained on this machine."""
    monkeypatch.setenv("MOAA_CACHE", str(tmp_path))
    found = Finished.new(JOB)
    (found.model / "sub").mkdir(parents=True)
    (found.model / "model.safetensors").write_bytes(b"weights")
    (found.model / "sub" / "x.json").write_bytes(b"{}")
    (found.model / "training_args.bin").write_bytes(b"a pickle")
    found.keep({"rows": 8})
    return found


def published(store: MemoryStore) -> dict[str, bytes]:
    """The model's files as result.json lists them."""
    result = json.loads(store.get(JOB.result))
    return {f["name"]: store.get(f"{JOB.output}/{f['key']}") for f in result["files"]}


def test_a_store_that_is_away_at_the_end_costs_time_and_nothing_else(finished: Finished) -> None:
    store: Any = Away(failures=5)
    publish.publish(JOB, store, finished, LONG)
    assert published(store) == {"model.safetensors": b"weights", "sub/x.json": b"{}"}
    facts = json.loads(store.get(JOB.result))["facts"]
    assert facts == {"rows": 8, "upload_waits": 5}
    assert not finished.folder.parent.exists(), "it is on the store: the disk is free again"


def test_a_model_that_could_not_be_uploaded_stays_and_the_next_attempt_only_uploads(
    finished: Finished,
) -> None:
    away: Any = Away(failures=99)
    with pytest.raises(StoreAway, match="InternalError") as error:
        publish.publish(JOB, away, finished, AT_ONCE)
    assert str(finished.folder) in str(error.value)
    found = Finished.find(JOB)
    assert found == finished
    store: Any = MemoryStore("s3://b")
    publish.publish(JOB, store, found, AT_ONCE)
    assert published(store)["model.safetensors"] == b"weights"
    assert Finished.find(JOB) is None


def test_a_refusal_that_no_waiting_heals_ends_the_training_at_once(finished: Finished) -> None:
    store: Any = Away(failures=1, error=StoreError)
    with pytest.raises(StoreError, match="run again, and it is uploaded") as error:
        publish.publish(JOB, store, finished, LONG)
    assert not error.value.outside
    assert Finished.find(JOB) == finished


def test_a_model_that_is_not_complete_is_never_uploaded(finished: Finished) -> None:
    (finished.folder / "facts.json").rename(finished.folder / "facts.json.unfinished")
    assert Finished.find(JOB) is None


def test_what_a_killed_attempt_had_half_saved_is_deleted(finished: Finished) -> None:
    ended = subprocess.Popen(["true"])
    ended.wait()
    half = finished.folder.with_name(f"{platform.node()}.{ended.pid}.0123abcd")
    (half / "model").mkdir(parents=True)
    at_work = Finished.new(JOB)
    (at_work.model).mkdir(parents=True)
    Finished.new(JOB)
    assert not half.exists()
    assert at_work.model.exists(), "an attempt that runs is left alone"
    assert Finished.find(JOB) == finished, "a complete one stays"


def test_a_model_of_another_training_is_left_alone(finished: Finished) -> None:
    assert Finished.find(JOB.model_copy(update={"output": "s3://b/sft/77"})) is None


def test_an_attempt_that_comes_second_leaves_the_first_ones_result(finished: Finished) -> None:
    store: Any = MemoryStore("s3://b")
    store.put(JOB.result, b'{"files": [], "facts": {"first": 1}}')
    publish.publish(JOB, store, finished, AT_ONCE)
    assert json.loads(store.get(JOB.result))["facts"] == {"first": 1}
    assert list(store.objects) == [JOB.result]


def test_a_pod_that_is_started_again_after_the_result_trains_nothing(finished: Finished) -> None:
    """Its node was lost after the upload: all steps were done again, without a checkpoint."""
    store: Any = MemoryStore("s3://b")
    empty: Any = MemoryStore("s3://b")
    store.put(JOB.result, b'{"files": [], "facts": {"first": 1}}')
    assert finished_before(JOB, store)
    assert json.loads(store.get(JOB.result))["facts"] == {"first": 1}
    assert not finished.folder.exists()
    assert not finished_before(JOB, empty)


def test_what_is_no_longer_needed_may_stay_when_the_store_is_away() -> None:
    called: list[str] = []

    def refuse() -> None:
        called.append("refused")
        raise StoreError("away")

    calls: list[Callable[[], None]] = [refuse, lambda: called.append("done")]
    for call in calls:
        publish.tidy("s3://b/checkpoints", call)
    assert called == ["refused", "done"]
