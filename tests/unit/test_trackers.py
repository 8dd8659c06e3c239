"""What a stage reports to its trackers, and who gets it."""

from __future__ import annotations

import json
import struct
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

import pytest

from moaa import trackers
from moaa.errors import RecipeError
from moaa.progress import Progress
from moaa.recipe import secrets
from moaa.recipe.load import load_file
from moaa.recipe.trackers import Tracker
from moaa.trackers.entry import Scalar
from moaa.trackers.tensorboard import event_file
from moaa.train.log_reader import LogReader
from moaa.train.protocol import PROGRESS
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.tracked import ENTRY, MANIFEST


def test_a_training_tells_its_steps_and_what_was_held_out() -> None:
    assert ENTRY.scalars == (
        Scalar("dpo/loss", 1, 0.69),
        Scalar("dpo/rewards/margins", 1, 0.0),
        Scalar("dpo/rewards/margins", 2, 0.5),
        Scalar("dpo/held out/loss", 0, 0.7),
        Scalar("dpo/held out/loss", 2, 0.6),
    )
    assert ENTRY.tags == {
        "dpo.artifact": "s3://moaa/demo/dpo/f1",
        "dpo.fingerprint": "f1",
        "dpo.from.sft": "s3://moaa/demo/sft/f0",
    }


def test_an_evaluation_tells_its_scores() -> None:
    rate = {"model": "dpo", "against": "base", "rate": 0.6, "low": 0.5, "high": 0.7, "n": 40}
    facts = {"win_rates": [rate]}
    found = trackers.entry_of(
        MANIFEST.model_copy(update={"stage": "evaluate", "facts": facts}), "r"
    )
    assert Scalar("evaluate/dpo win rate", 0, 0.6) in found.scalars


def test_event_files_are_what_tensorboard_reads() -> None:
    """The checksum of the known vector of CRC-32C, and the records one by one."""
    from moaa.trackers.tensorboard import _checksum

    (masked,) = struct.unpack("<I", _checksum(b"123456789"))
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    assert (rotated >> 17 | rotated << 15) & 0xFFFFFFFF == 0xE3069283
    data, events = event_file(ENTRY), []
    while data:
        (length,) = struct.unpack("<Q", data[:8])
        assert data[8:12] == _checksum(data[:8])
        event, data = data[12 : 12 + length], data[12 + length :]
        assert data[:4] == _checksum(event)
        events.append(event)
        data = data[4:]
    assert b"brain.Event:2" in events[0]
    assert len(events) == 1 + len(ENTRY.scalars) + 1
    assert b"dpo.from.sft: s3://moaa/demo/sft/f0" in events[-1]
    assert b"dpo/rewards/margins" in events[3]
    assert events[3].endswith(struct.pack("<f", 0.5))


def test_event_files_lie_below_the_run_and_are_written_once() -> None:
    store = MemoryStore("s3://moaa/demo")
    for _ in range(2):
        assert not trackers.write([Tracker(kind="tensorboard")], ENTRY, store)
    (uri,) = store.objects
    assert uri.startswith("s3://moaa/demo/tensorboard/run-1/dpo/events.out.tfevents.")


def test_event_files_of_attempts_that_were_stopped_are_replaced_by_the_complete_one() -> None:
    store: Any = MemoryStore("s3://moaa/demo")
    tracker = [Tracker(kind="tensorboard")]
    for attempt in range(2):
        about = replace(ENTRY, made_s=ENTRY.made_s - 100 + attempt)
        assert not trackers.write(tracker, about, store)
    other = replace(ENTRY, stage="sft")
    assert not trackers.write(tracker, other, store)
    assert not trackers.Live(tracker, about, store).rest(ENTRY)
    files = {uri.removeprefix("s3://moaa/demo/tensorboard/run-1/") for uri in store.objects}
    name = f"events.out.tfevents.{int(ENTRY.made_s)}.moaa"
    assert files == {f"dpo/{name}", f"sft/{name}"}


STORE: Any = MemoryStore("s3://moaa/demo")


def test_the_log_of_a_training_gives_the_steps_that_its_facts_will_have() -> None:
    found: list[tuple[int, dict[str, object], str]] = []
    progress = Progress.silent()
    progress.on_point = lambda step, values, part: found.append((step, dict(values), part))
    reader = LogReader(progress)
    begin = {"step": 0, "steps": 2, "begin": True}
    for fields in (begin, {"held_out": {"loss": 0.7}}, {"step": 1, "steps": 2, "loss": 0.69}):
        reader.read(f"{PROGRESS}{json.dumps(fields)}")
    assert found == [(0, {"loss": 0.7}, "held out/"), (1, {"loss": 0.69}, "")]


def test_a_tracker_that_is_away_is_counted_and_the_others_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NOBODY_KEY", raising=False)
    store: Any = MemoryStore("s3://moaa/demo")
    away = [
        Tracker(kind="mlflow", url="http://127.0.0.1:9"),
        Tracker(kind="wandb", key_env="NOBODY_KEY"),
    ]
    failed = trackers.write([*away, Tracker(kind="tensorboard")], ENTRY, store)
    assert failed == {"trackers that got nothing: mlflow": 1, "trackers that got nothing: wandb": 1}
    assert len(store.objects) == 1


class WandbRun:
    """A run of Weights & Biases, as its server keeps it: what is logged for a step that is not
    above the last one is dropped. Without a step, each call is the next one."""

    def __init__(self) -> None:
        self.steps: dict[str, str] = {}
        """By name or pattern of a metric: the metric that is its x-axis."""
        self.history: list[dict[str, float]] = []
        self._last = -1

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        if step_metric:
            self.steps[name] = step_metric

    def log(self, values: dict[str, float], step: int | None = None) -> None:
        step = self._last + 1 if step is None else step
        if step > self._last:
            self.history.append(values)
            self._last = step

    def finish(self) -> None:
        pass

    def points(self, name: str) -> list[tuple[float, float]]:
        """The curve of a metric over its x-axis."""
        axis = self.steps[f"{name.partition('/')[0]}/*"]
        return sorted((row[axis], row[name]) for row in self.history if name in row)


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> tuple[WandbRun, list[dict[str, Any]]]:
    """The one run that is resumed each time, and what `init` got."""
    run, begun = WandbRun(), []
    package: Any = ModuleType("wandb")
    package.Settings = lambda **fields: fields

    def init(**fields: Any) -> WandbRun:
        begun.append(fields)
        return run

    package.init = init
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setenv("WANDB_API_KEY", "k")
    return run, begun


WANDB = Tracker(kind="wandb", key_env="WANDB_API_KEY", project="p")


def test_weights_and_biases_gets_a_run_a_stage(
    wandb: tuple[WandbRun, list[dict[str, Any]]],
) -> None:
    run, begun = wandb
    assert not trackers.write([WANDB], ENTRY, STORE)
    assert (begun[0]["project"], begun[0]["id"], begun[0]["group"]) == ("p", "run-1-dpo", "run-1")
    assert begun[0]["settings"]["base_url"] == "https://api.wandb.ai"
    assert run.points("dpo/rewards/margins") == [(1, 0.0), (2, 0.5)]


def test_a_number_that_comes_after_a_later_step_is_not_lost(
    wandb: tuple[WandbRun, list[dict[str, Any]]],
) -> None:
    """What was measured on held-out rows is told after the steps that came meanwhile."""
    run, _ = wandb
    for scalars in (
        (Scalar("dpo/loss", 1, 0.69), Scalar("dpo/loss", 2, 0.5)),
        (Scalar("dpo/held out/loss", 1, 0.7), Scalar("dpo/loss", 3, 0.4)),
    ):
        assert not trackers.write([WANDB], replace(ENTRY, scalars=scalars), STORE)
    assert run.points("dpo/held out/loss") == [(1, 0.7)]
    assert run.points("dpo/loss") == [(1, 0.69), (2, 0.5), (3, 0.4)]


def test_a_key_must_be_the_trackers_own_and_reach_the_stages() -> None:
    tracker = "runtime.trackers=[{kind: mlflow, url: 'https://ml.example', key_env: KEY}]"
    with pytest.raises(RecipeError, match=r"KEY is not one of runtime.secret_envs"):
        load_file(DEMO, [tracker])
    with pytest.raises(RecipeError, match="belongs to the store"):
        load_file(DEMO, [tracker.replace("KEY", "AWS_SECRET_ACCESS_KEY")])
    with pytest.raises(RecipeError, match="belongs to GitHub"):
        load_file(DEMO, [tracker.replace("KEY", "GITHUB_TOKEN")])
    recipe = load_file(DEMO, [tracker, "runtime.secret_envs=[KEY]"]).recipe
    assert secrets.destinations(recipe)["KEY"] == ["https://ml.example:443"]
    other = load_file(DEMO, [tracker.replace("ml.", "evil."), "runtime.secret_envs=[KEY]"]).recipe
    with pytest.raises(RecipeError, match=r"sends KEY to https://evil\.example:443"):
        secrets.refuse_other_destinations(other, json.dumps(secrets.destinations(recipe)))


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ("{kind: mlflow}", "needs the `url`"),
        ("{kind: wandb}", "needs `key_env`"),
        ("{kind: tensorboard, url: 'https://x.example'}", "event files go to the store"),
        ("{kind: mlflow, url: 'http://x.example', key_env: K}", "readable"),
        ("{kind: mlflow, url: 'https://u:p@x.example'}", "password"),
    ],
)
def test_trackers_that_cannot_work_are_refused(fields: str, why: str) -> None:
    with pytest.raises(RecipeError, match=why):
        load_file(DEMO, [f"runtime.trackers=[{fields}]"])
