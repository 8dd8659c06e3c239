"""`moaa ask`: what it shows of an answer by the mixture, and how it ends."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

from moaa.progress.terminal import printable
from tests.support.cli import DEMO, called, moaa
from tests.support.engine_server import EngineServer, context_length, slow, text

pytestmark = pytest.mark.usefixtures("in_the_repository")
Here = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Here:
    """As `moaa`, without a process of its own, which takes half a second to start."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        status, out, err = called(monkeypatch, capsys, *arguments)
        return subprocess.CompletedProcess(arguments, status, out, err)

    return run


def test_ask_shows_each_proposal_the_synthesis_tokens_and_seconds(here: Here) -> None:
    with EngineServer("smollm2") as server:
        done = here(
            "ask", DEMO, "Why is the sky blue?", "--endpoint", server.url, "--system", "Be kind."
        )
        assert done.returncode == 0, done.stderr
        asked = server.requests[1:]  # the first is the question whether it answers at all
    titles = [
        line for line in done.stdout.splitlines() if "tokens, " in line and "  smollm2" in line
    ]
    assert [title.split("  ")[0] for title in titles][3:] == ["synthesis by smollm2"]
    assert sorted(title.split("  ")[0] for title in titles[:3]) == [
        "concise",
        "creative",
        "thorough",
    ]
    assert "4 calls, " in done.stdout.splitlines()[-1]
    assert len(asked) == 4
    assert all("Be kind." in request["messages"][0]["content"] for request in asked)
    assert all(
        request["messages"][-1] == {"role": "user", "content": "Why is the sky blue?"}
        for request in asked
    )
    proposals = [
        line
        for line in done.stdout.splitlines()
        if len(line.split()) == 8 and all(len(w) == 8 for w in line.split())
    ]
    assert len(proposals) == 4
    assert all(proposal in asked[3]["messages"][0]["content"] for proposal in proposals[:3])


def test_ask_reads_standard_input_and_takes_a_server_by_model() -> None:
    with EngineServer("smollm2") as server:
        done = moaa(
            "ask", DEMO, "-", "--endpoint", f"smollm2={server.url}", given="A long\nquestion?"
        )
        assert done.returncode == 0, done.stderr
        assert server.requests[-1]["messages"][-1]["content"] == "A long\nquestion?"


def test_ask_takes_what_else_is_said_about_a_server(here: Here, monkeypatch) -> None:
    monkeypatch.setenv("MY_KEY", "let-me-in")
    with EngineServer("there", key="let-me-in") as server:
        said = (
            "--set",
            "models.smollm2.endpoint.model=there",
            "--set",
            "models.smollm2.endpoint.key_env=MY_KEY",
        )
        done = here("ask", DEMO, "Why?", "--endpoint", server.url, *said)
    assert done.returncode == 0, done.stderr


def test_ask_goes_on_without_a_proposer_and_says_so(here: Here) -> None:
    with EngineServer("smollm2") as server:
        server.fail(slow(0), context_length())
        done = here("ask", DEMO, "Why?", "--endpoint", server.url)
    assert done.returncode == 0, done.stderr
    assert "concise  left out: context length" in done.stdout
    assert "3 calls, " in done.stdout.splitlines()[-1]


def test_ask_without_enough_proposers_ends_with_the_reason(here: Here) -> None:
    with EngineServer("smollm2") as server:
        server.fail(slow(0), context_length(), context_length())
        done = here("ask", DEMO, "Why?", "--endpoint", server.url)
    assert done.returncode == 1
    assert "too few proposals" in done.stderr
    assert "Traceback" not in done.stderr


def test_ask_never_lets_a_model_write_to_the_terminal(here: Here) -> None:
    evil = "\x1b]0;owned\x07\x1b[2J red\r\x9b31m ok\nline [bold]two[/bold]"
    assert printable(evil) == " ]0;owned  [2J red  31m ok\nline [bold]two[/bold]"
    message = {"content": "\x1b[2J[bold]x[/bold]"}
    choice = {"message": message, "finish_reason": "stop"}
    body = json.dumps({"choices": [choice], "usage": {}})
    with EngineServer("smollm2") as server:
        server.fail(text(body), times=5)
        done = here("ask", DEMO, "Why?", "--endpoint", server.url)
    assert "\x1b" not in done.stdout
    assert "[2J[bold]x[/bold]" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["  "], "The question is empty."),
        (
            ["Why?", "--endpoint", "127.0.0.1:8000"],
            "--endpoint 127.0.0.1:8000: give a server's address",
        ),
        (["Why?", "--endpoint", "gemma=http://h/v1"], "'gemma' is not one of `models` (smollm2)."),
    ],
)
def test_ask_refuses(monkeypatch, capsys, arguments: list[str], expected: str) -> None:
    status, _, err = called(monkeypatch, capsys, "ask", DEMO, *arguments)
    assert status == 1
    assert expected in err
