"""The scripts that the charts put into pods, run against a server of ours. They need no helm."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.charts.render import SERVING


class Engine:
    """Answers chats with `tokens` tokens (or HTTP 503 while that is None) and says that `busy`
    requests are in flight."""

    def __init__(self) -> None:
        self.tokens: int | None = 1
        self.busy = 0
        self.asked: list[dict[str, Any]] = []
        engine = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                engine.asked.append(
                    json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                )
                reply = {"usage": {"completion_tokens": engine.tokens}}
                self.answer(503 if engine.tokens is None else 200, json.dumps(reply))

            def do_GET(self) -> None:
                lines = [
                    "# HELP vllm:num_requests_running Number",
                    f'vllm:num_requests_running{{engine="0",model_name="m"}} {engine.busy}.0',
                    'vllm:num_requests_waiting{engine="0",model_name="m"} 0.0',
                    'vllm:num_requests_waiting_by_reason{engine="0"} 7.0',
                    'vllm:generation_tokens_total{engine="0"} 12.0',
                ]
                self.answer(200, "\n".join(lines))

            def answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = str(self.server.server_port)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def engine() -> Iterator[Engine]:
    made = Engine()
    yield made
    made.server.shutdown()
    made.server.server_close()


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script as a pod does: Python gets its text."""
    text = (SERVING / "files" / name).read_text()
    return subprocess.run(
        [sys.executable, "-c", text, *arguments], capture_output=True, text=True, timeout=60
    )


def test_ready_is_who_has_answered_one_token(engine: Engine) -> None:
    assert script("ready.py", engine.port, "qwen", "5").returncode == 0
    (asked,) = engine.asked
    assert (asked["model"], asked["max_tokens"]) == ("qwen", 1)


@pytest.mark.parametrize("tokens", [None, 0])
def test_an_engine_that_does_not_answer_is_not_ready_and_says_why(
    engine: Engine, tokens: int | None
) -> None:
    engine.tokens = tokens
    done = script("ready.py", engine.port, "qwen", "5")
    assert done.returncode == 1
    assert done.stderr.startswith("qwen does not answer yet: ")


def test_nobody_there_is_not_ready() -> None:
    done = script("ready.py", "1", "qwen", "5")
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
    done = script("answers.py", "localhost leased 0", "nowhere.invalid up 1")
    assert done.returncode == 1
    assert [line[:13] for line in done.stdout.splitlines()] == ["ok    leased:", "FAIL  up at n"]
