"""MLflow: one run for all stages, each step once, also if the server is away in between."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from moaa import trackers
from moaa.recipe.trackers import Tracker
from moaa.trackers.entry import Scalar, TrackerEntry
from tests.support.memory_store import MemoryStore
from tests.support.tracked import ENTRY
from tests.support.waiting import until


class Mlflow:
    """A fake that keeps what it is told, as the real one does."""

    def __init__(self) -> None:
        self.experiments: dict[str, str] = {}
        self.runs: list[dict[str, Any]] = []
        self.metrics: set[tuple[str, float, int, int]] = set()
        self.tags: dict[str, str] = {}
        self.keys: set[str | None] = set()
        self.redirect = ""
        self.histories = 0
        """How often a metric's history was asked for."""

    def get(self, path: str, query: dict[str, list[str]]) -> tuple[int, Any]:
        if path.endswith("/metrics/get-history"):
            self.histories += 1
            return self.history(query["metric_key"][0], query.get("page_token", ["0"])[0])
        assert path.endswith("/experiments/get-by-name")
        name = query["experiment_name"][0]
        if name not in self.experiments:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}
        return 200, {"experiment": {"experiment_id": self.experiments[name]}}

    def history(self, name: str, start: str) -> tuple[int, Any]:
        """The points of a metric, in pages of 1,000."""
        points = sorted((each for each in self.metrics if each[0] == name), key=lambda m: m[2])
        if not points:
            return 404, {"error_code": "RESOURCE_DOES_NOT_EXIST"}
        page = points[int(start) : int(start) + 1000]
        found: dict[str, Any] = {"metrics": [{"key": m[0], "step": m[2]} for m in page]}
        if int(start) + 1000 < len(points):
            found["next_page_token"] = str(int(start) + 1000)
        return 200, found

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
    other = TrackerEntry("run-1", "demo", "sft", many, {"sft.artifact": "s3://x"}, ENTRY.made_s)
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


def test_a_stage_that_is_stopped_and_goes_on_tells_no_step_twice() -> None:
    """The next attempt has another time, and repeats the steps since the last checkpoint."""
    fake = Mlflow()

    def there(steps: int) -> bool:
        return len(fake.metrics) >= steps

    with serving(fake) as url:
        tracker = [Tracker(kind="mlflow", url=url)]
        for attempt, steps in enumerate(((1, 2, 3), (2, 3, 2, 4))):
            about = replace(ENTRY, scalars=(), tags={}, made_s=ENTRY.made_s + attempt)
            live = trackers.Live(tracker, about, STORE, every_s=0.01)
            with live:
                for step in steps:
                    live.point(step, {"loss": 1 / step + attempt})
                until(partial(there, max(steps)))
        told = tuple(Scalar("dpo/loss", step, 1 / step) for step in (1, 2, 3, 4))
        assert not live.rest(replace(ENTRY, scalars=told, made_s=ENTRY.made_s + 9))
    assert sorted(step for _, _, step, _ in fake.metrics) == [1, 2, 3, 4]


def test_what_earlier_attempts_told_is_asked_for_once_while_a_training_goes_on() -> None:
    """Each tick read the whole history of every metric: more with each step of the training."""
    fake = Mlflow()

    def there(steps: int) -> bool:
        return len(fake.metrics) >= steps

    with serving(fake) as url:
        about = replace(ENTRY, scalars=(), tags={})
        with trackers.Live([Tracker(kind="mlflow", url=url)], about, STORE, every_s=0.01) as live:
            for step in range(1, 6):
                live.point(step, {"loss": 1 / step})
                until(partial(there, step))
    assert fake.histories == 1


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


def test_a_key_follows_no_redirect_to_another_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TOKEN", "s3cret")
    thief, fake = Mlflow(), Mlflow()
    with serving(thief) as elsewhere, serving(fake) as url:
        fake.redirect = f"{elsewhere}/api/2.0/mlflow/experiments/get-by-name"
        tracker = Tracker(kind="mlflow", url=url, key_env="MLFLOW_TOKEN")
        assert trackers.write([tracker], ENTRY, STORE)
    assert thief.keys == set()
