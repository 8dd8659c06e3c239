"""The scripts that the charts put into pods, run against a server of ours. They need no helm."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.charts.render import SERVING


class Engine:
    """Answers chats with `tokens` tokens (or HTTP 503 while that is None) and says that `busy`
    requests are in flight. `answers` False: it hangs. `development`: what it says of its sleep."""

    def __init__(self) -> None:
        self.tokens: int | None = 1
        self.busy = 0
        self.written = 12
        self.asleep: bool | None = None
        self.answers = True
        self.health = 200
        self.keys: set[str | None] = set()
        self.paths: list[str] = []
        self.data: list[dict[str, Any]] = [{"probs": [0.5]}]
        self.asked: list[dict[str, Any]] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                engine.asked.append(
                    json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                )
                engine.keys.add(self.headers["Authorization"])
                engine.paths.append(self.path)
                if not engine.answers:
                    engine.stopped.wait(30)
                reply = {"usage": {"completion_tokens": engine.tokens}, "data": engine.data}
                self.answer(503 if engine.tokens is None else 200, json.dumps(reply))

            def do_GET(self) -> None:
                if self.path == "/health":
                    return self.answer(engine.health, "")
                if self.path in ("/is_sleeping", "/is_paused"):
                    if engine.asleep is None:
                        return self.answer(404, '{"detail": "Not Found"}')
                    return self.answer(200, json.dumps({self.path[1:]: engine.asleep}))
                lines = [
                    "# HELP vllm:num_requests_running Number",
                    f'vllm:num_requests_running{{engine="0",model_name="m"}} {engine.busy}.0',
                    'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0',
                    'vllm:num_requests_waiting_by_reason{engine="0"} 7.0',
                    f'vllm:generation_tokens_total{{engine="0"}} {engine.written}.0',
                ]
                return self.answer(200, "\n".join(lines))

            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.stopped = threading.Event()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = str(self.server.server_port)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.stopped.set()
    made.server.shutdown()
    made.server.server_close()


def script(name: str, *arguments: str, key: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script as a pod does: Python gets its text."""
    text = (SERVING / "files" / name).read_text()
    command = [sys.executable, "-c", text, *arguments]
    environment = os.environ | ({"VLLM_API_KEY": key} if key else {})
    return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


class Liveness:
    """The chart's probe with its memory. `after` ages what it has seen, so that no test waits."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.memory = engine, folder / "alive.json"
        self.task = "chat"

    def after(self, seconds: float) -> subprocess.CompletedProcess[str]:
        if self.memory.exists():
            seen = json.loads(self.memory.read_text())
            self.memory.write_text(json.dumps(seen | {"since": seen["since"] - seconds}))
        port = self.engine.port
        return script("alive.py", port, "qwen", "300", str(self.memory), self.task, key="secret")


@pytest.fixture
def probe(engine: Engine, tmp_path: Path) -> Liveness:
    return Liveness(engine, tmp_path)


def test_an_engine_whose_requests_do_not_get_on_is_started_again(
    engine: Engine, probe: Liveness
) -> None:
    engine.busy = 3
    assert [probe.after(s).returncode for s in (0, 100, 100, 95)] == [0, 0, 0, 0]
    done = probe.after(10)
    assert done.returncode == 1
    assert "requests are there, and nothing moves" in done.stderr
    assert not engine.asked, "a request more would only wait"


def test_an_engine_that_gets_on_is_left_alone_however_long_its_requests_are(
    engine: Engine, probe: Liveness
) -> None:
    """As in a long prefill: each step moves something."""
    engine.busy = 64
    for _ in range(5):
        engine.written += 1
        assert probe.after(0).returncode == 0
        assert probe.after(290).returncode == 0


@pytest.mark.parametrize("busy", [0, 3])
def test_an_engine_that_is_paused_or_asleep_is_left_alone(
    engine: Engine, probe: Liveness, busy: int
) -> None:
    engine.busy, engine.asleep = busy, True
    assert [probe.after(s).returncode for s in (0, 1000, 1000)] == [0, 0, 0]
    assert not engine.asked
    engine.asleep = False
    assert probe.after(10).returncode == (1 if busy else 0)


def test_an_idle_engine_is_asked_now_and_then_and_one_that_hangs_is_found(
    engine: Engine, probe: Liveness
) -> None:
    assert [probe.after(s).returncode for s in (0, 200)] == [0, 0]
    assert not engine.asked
    assert probe.after(101).returncode == 0
    (asked,) = engine.asked
    assert (asked["model"], asked["max_tokens"], engine.keys) == ("qwen", 1, {"Bearer secret"})
    engine.answers = False
    assert [probe.after(s).returncode for s in (0, 200)] == [0, 0]
    done = probe.after(101)
    assert done.returncode == 1
    assert "and it does not answer" in done.stderr


def test_an_idle_engine_that_refuses_the_question_has_answered(
    engine: Engine, probe: Liveness
) -> None:
    engine.tokens = None  # HTTP 503
    assert [probe.after(s).returncode for s in (0, 301, 0)] == [0, 0, 0]


def test_an_engine_that_says_that_it_is_dead_is_dead(engine: Engine, probe: Liveness) -> None:
    assert probe.after(0).returncode == 0
    engine.health = 500
    assert probe.after(0).returncode == 1


@pytest.mark.parametrize("left", ["{", "[]", '{"seen": {}, "since": 1e18}'])
def test_what_an_earlier_container_left_does_not_count(
    engine: Engine, probe: Liveness, left: str
) -> None:
    probe.memory.write_text(left)
    engine.busy = 1
    done = script("alive.py", engine.port, "qwen", "300", str(probe.memory), "chat")
    assert (done.returncode, done.stderr) == (0, "")


def test_ready_is_who_has_answered_one_token(engine: Engine) -> None:
    assert script("ready.py", engine.port, "qwen", "5", "chat").returncode == 0
    (asked,) = engine.asked
    assert (asked["model"], asked["max_tokens"]) == ("qwen", 1)


@pytest.mark.parametrize(("task", "path"), [("reward", "/classify"), ("embed", "/pooling")])
def test_a_reward_model_is_ready_and_alive_when_it_has_given_a_score(
    engine: Engine, probe: Liveness, task: str, path: str
) -> None:
    probe.task = task
    assert script("ready.py", engine.port, "rm", "5", task).returncode == 0
    assert [probe.after(s).returncode for s in (0, 301)] == [0, 0]
    assert engine.paths == [path, path]
    assert all("max_tokens" not in body for body in engine.asked)
    engine.data = []
    done = script("ready.py", engine.port, "rm", "5", task)
    assert (done.returncode, "does not answer yet" in done.stderr) == (1, True)


@pytest.mark.parametrize("tokens", [None, 0])
def test_an_engine_that_does_not_answer_is_not_ready_and_says_why(
    engine: Engine, tokens: int | None
) -> None:
    engine.tokens = tokens
    done = script("ready.py", engine.port, "qwen", "5", "chat")
    assert done.returncode == 1
    assert done.stderr.startswith("qwen does not answer yet: ")


def test_nobody_there_is_not_ready() -> None:
    done = script("ready.py", "1", "qwen", "5", "chat")
    assert (done.returncode, "refused" in done.stderr) == (1, True)


def test_drain_waits_for_requests_in_flight_and_no_longer(engine: Engine) -> None:
    engine.busy = 2
    threading.Timer(4, lambda: setattr(engine, "busy", 0)).start()
    began = time.monotonic()
    assert script("drain.py", engine.port, "30").returncode == 0
    assert 4 <= time.monotonic() - began < 12


def test_drain_gives_up_after_its_time(engine: Engine) -> None:
    engine.busy = 1
    began = time.monotonic()
    assert script("drain.py", engine.port, "4").returncode == 0
    assert 4 <= time.monotonic() - began < 10


def test_there_is_nothing_to_drain_of_an_engine_that_is_gone() -> None:
    began = time.monotonic()
    assert "the engine is gone" in script("drain.py", "1", "30").stderr
    assert time.monotonic() - began < 10


def test_the_test_fails_for_a_model_that_should_be_up_and_is_not() -> None:
    done = script("answers.py", "localhost leased 0 chat", "nowhere.invalid up 1 reward")
    assert done.returncode == 1
    assert [line[:13] for line in done.stdout.splitlines()] == ["ok    leased:", "FAIL  up at n"]
