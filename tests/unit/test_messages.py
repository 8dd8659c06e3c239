"""Messages: levels, the channel from a stage to its runner, and a program that routes them."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from moaa.progress import messages

STAGE = """
from moaa.progress import messages
messages.show()
messages.say("generate: one\\n  of two lines")
messages.log.debug("detail")
messages.final_error("generate failed: no disk\\n  free some")
"""


def run_stage() -> str:
    command = [sys.executable, "-c", STAGE]
    return subprocess.run(command, capture_output=True, text=True, check=True).stderr


def test_a_stage_reaches_its_runner_whole_and_its_error_is_kept_for_the_end(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    messages.show()
    with messages.relay(tmp_path / "messages.jsonl") as relayed:
        own_log = run_stage()
    assert capsys.readouterr().err == "generate: one\n  of two lines\n"
    assert relayed.error == "generate failed: no disk\n  free some"
    assert own_log == "generate: one\n  of two lines\ngenerate failed: no disk\n  free some\n"


def test_a_message_that_was_cut_costs_no_other_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """After half a line (a full disk, a killed stage) nothing was relayed any more: the run ended
    without the error of the stage that failed."""
    messages.show()
    path = tmp_path / "messages.jsonl"
    with messages.relay(path) as relayed:
        path.write_text('{"level": 20, "text": "half a \\"word\nno message\n{"level": 20, "te')
        run_stage()
    assert capsys.readouterr().err == "generate: one\n  of two lines\n"
    assert relayed.error == "generate failed: no disk\n  free some"


def test_only_new_messages_are_relayed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A run that continues under its id appends to the file of its first attempt."""
    messages.show()
    for _ in range(2):
        with messages.relay(tmp_path / "messages.jsonl"):
            run_stage()
    assert capsys.readouterr().err.count("generate: one") == 2


@pytest.mark.parametrize(
    ("level", "shown"), [(logging.DEBUG, "dse"), (logging.INFO, "se"), (logging.ERROR, "e")]
)
def test_verbose_and_quiet(level: int, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    messages.show(level)
    messages.log.debug("d")
    messages.say("s")
    messages.log.error("e")
    messages.show()
    assert capsys.readouterr().err.split() == list(shown)


def test_an_embedding_program_routes_them() -> None:
    """Nothing is printed unless somebody asks for it."""
    code = (
        "import logging; from moaa.progress.messages import say\n"
        "say('not shown'); logging.basicConfig(level=20, format='%(name)s|%(message)s')\n"
        "say('shown')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("", "moaa|shown\n")
