"""Trackers get steps, scores and lineage, once; one that is away costs a warning."""

from __future__ import annotations

import json
import struct
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from moaa import trackers
from moaa.artifacts import Manifest
from moaa.artifacts.manifest import Parent
from moaa.errors import RecipeError
from moaa.progress import Progress
from moaa.recipe import secrets
from moaa.recipe.load import load_file
from moaa.recipe.trackers import Tracker
from moaa.trackers.entry import Entry, Scalar
from moaa.trackers.tensorboard import event_file
from moaa.train.log_reader import LogReader
from moaa.train.protocol import PROGRESS
from tests.support.memory_store import MemoryStore
from tests.support.paths import DEMO
from tests.support.waiting import until

MANIFEST = Manifest(
    stage="dpo",
    kind="model",
    name="demo",
    uri="s3://moaa/demo/dpo/f1",
    fingerprint="f1",
    schema_version=1,
    created="2026-11-28T12:00:00+00:00",
    parents=(Parent(name="sft", kind="model", uri="s3://moaa/demo/sft/f0", fingerprint="f0"),),
    facts={
        "curve": [
            {"step": 1, "loss": 0.69, "rewards/margins": 0.0},
            {"step": 2, "loss": float("nan"), "rewards/margins": 0.5},
        ],
        "validation": {"curve": [{"step": 0, "loss": 0.7}, {"step": 2, "loss": 0.6}]},
    },
)
ENTRY = trackers.entry_of(MANIFEST, "run-1")


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


class Mlflow:
    """A fake that keeps what it is told, as the real one does."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.metrics: set[tuple[str, float, int, int]] = set()
        self.tags: dict[str, str] = {}
        self.keys: set[str | None] = set()
        self.redirect = ""

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        assert path.endswith("/experiments/get-by-name")
        name = query["experiment_name"][0]
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}
        return 200, {"experiment": {"experiment_id": self.experiments[name]}}

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        match path.removeprefix("/api/2.0/mlflow/"):
            case "experiments/create":
                self.experiments[body["name"]] = "7"
                return 200, {"experiment_id": "7"}
            case "runs/search":
                assert body["filter"] == "tags.`moaa.run` = 'run-1'"
                return 200, {"runs": self.runs} if self.runs else {}
            case "runs/create":
                self.runs.append({"info": {"run_id": "r"}})
                return 200, {"run": self.runs[0]}
            case "runs/log-batch":
                assert len(body["metrics"]) + len(body["tags"]) <= 1000
                self.metrics |= {
                    (m["key"], m["value"], m["step"], m["timestamp"]) for m in body["metrics"]
                }
                self.tags |= {tag["key"]: tag["value"] for tag in body["tags"]}
                return 200, {}
        return 404, {}


@contextmanager
def serving(fake: Mlflow) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def _answer(self, status: int, body: Any) -> None:
            fake.keys.add(self.headers.get("Authorization"))
            if fake.redirect:
                self.send_response(307)
                self.send_header("Location", fake.redirect)
                self.end_headers()
                return
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            self._answer(*fake.get(parts.path, parse_qs(parts.query)))

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            self._answer(*fake.post(self.path, body))

        def log_message(self, *args: Any) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


STORE: Any = MemoryStore("s3://moaa/demo")


def test_mlflow_gets_one_run_for_all_stages_and_nothing_twice(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TOKEN", "s3cret\n")
    fake = Mlflow()
    many = tuple(Scalar("sft/loss", step, 1.0) for step in range(2500))
    other = Entry("run-1", "demo", "sft", many, {"sft.artifact": "s3://x"}, ENTRY.made_s)
    with serving(fake) as url:
        tracker = Tracker(kind="mlflow", url=url, key_env="MLFLOW_TOKEN")
        for entry in (ENTRY, ENTRY, other):
            assert not trackers.write([tracker], entry, STORE)
    assert fake.experiments == {"demo": "7"}
    assert len(fake.runs) == 1
    assert len(fake.metrics) == len(ENTRY.scalars) + len(many)
    assert fake.tags["dpo.fingerprint"] == "f1"
    assert fake.tags["sft.artifact"] == "s3://x"
    assert fake.keys == {"Bearer s3cret"}


def test_steps_are_told_while_a_training_goes_on_and_not_again_at_its_end() -> None:
    fake, store = Mlflow(), MemoryStore("s3://moaa/demo")
    with serving(fake) as url:
        both = [Tracker(kind="mlflow", url=url), Tracker(kind="tensorboard")]
        live = trackers.Live(both, replace(ENTRY, scalars=(), tags={}), store, every_s=0.01)
        with live:
            live.point(0, {"loss": 0.7}, "held out/")
            live.point(1, {"loss": 0.69, "rewards/margins": 0.0, "odd": "x"})
            until(lambda: len(fake.metrics) == 3 and len(store.objects) == 1)
            live.point(2, {"loss": float("nan"), "rewards/margins": 0.5})
            until(lambda: len(fake.metrics) == 4)
        early = dict(store.objects)
        assert not live.rest(replace(ENTRY, made_s=ENTRY.made_s + 60))
    keys = [(key, step) for key, _, step, _ in fake.metrics]
    assert len(keys) == len(set(keys)) == len(ENTRY.scalars), "each once, whatever its time"
    assert fake.tags["dpo.artifact"] == "s3://moaa/demo/dpo/f1"
    assert not early.keys() & store.objects.keys(), "one file took the place of the other"
    assert len(store.objects) == 1


def test_a_tracker_that_is_away_in_between_gets_all_in_the_end(
    caplog: pytest.LogCaptureFixture,
) -> None:
    fake = Mlflow()
    with serving(fake) as url:
        live = trackers.Live(
            [Tracker(kind="mlflow", url="http://127.0.0.1:9")], ENTRY, STORE, every_s=0.01
        )
        with live:
            live.point(1, {"loss": 0.69})
            until(lambda: caplog.text.count("mlflow got nothing") == 1)
            live.point(2, {"loss": 0.68})
            time.sleep(0.05)  # it tries again, and says it once
        assert caplog.text.count("mlflow got nothing") == 1
        live._trackers = [Tracker(kind="mlflow", url=url)]
        live.rest(ENTRY)
    assert len(fake.metrics) == len(ENTRY.scalars)


def test_the_log_of_a_training_gives_the_steps_that_its_facts_will_have() -> None:
    found: list[tuple[int, dict[str, object], str]] = []
    progress = Progress.silent()
    progress.on_point = lambda step, values, part: found.append((step, dict(values), part))
    reader = LogReader(progress)
    begin = {"step": 0, "steps": 2, "begin": True}
    for fields in (begin, {"held_out": {"loss": 0.7}}, {"step": 1, "steps": 2, "loss": 0.69}):
        reader.read(f"{PROGRESS}{json.dumps(fields)}")
    assert found == [(0, {"loss": 0.7}, "held out/"), (1, {"loss": 0.69}, "")]


def test_a_key_follows_no_redirect_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TOKEN", "s3cret")
    thief, fake = Mlflow(), Mlflow()
    with serving(thief) as elsewhere, serving(fake) as url:
        fake.redirect = f"{elsewhere}/api/2.0/mlflow/experiments/get-by-name"
        tracker = Tracker(kind="mlflow", url=url, key_env="MLFLOW_TOKEN")
        assert trackers.write([tracker], ENTRY, STORE)
    assert thief.keys == set()


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


def test_weights_and_biases_gets_a_run_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[Any] = []
    package: Any = ModuleType("wandb")
    package.Settings = lambda **fields: fields

    def init(**fields: Any) -> Any:
        logged.append(fields)
        return SimpleNamespace(
            log=lambda values, step: logged.append((step, values)), finish=lambda: None
        )

    package.init = init
    monkeypatch.setitem(sys.modules, "wandb", package)
    monkeypatch.setenv("WANDB_API_KEY", "k")
    tracker = Tracker(kind="wandb", key_env="WANDB_API_KEY", project="p")
    assert not trackers.write([tracker], ENTRY, STORE)
    assert (logged[0]["project"], logged[0]["id"], logged[0]["group"]) == (
        "p",
        "run-1-dpo",
        "run-1",
    )
    assert logged[0]["settings"]["base_url"] == "https://api.wandb.ai"
    assert [step for step, _ in logged[1:]] == [0, 1, 2]


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
