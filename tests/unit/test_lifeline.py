"""A runner that leaves waits for its stages; a stage whose runner is gone stops."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from moaa import lifeline
from moaa.lifeline import RUNNER_ENV, Terminated, runner, stoppable
from tests.support.paths import ROOT
from tests.support.waiting import until

STAGE = """
import sys, time
from pathlib import Path
from moaa.lifeline import Terminated, stoppable
folder, needs_s = Path(sys.argv[1]), float(sys.argv[2])
try:
    with stoppable() as stop:
        (folder / "up").touch()
        try:
            time.sleep(60)
        finally:
            stop.ignore()
            time.sleep(needs_s)
            (folder / "record").touch()
except Terminated:
    sys.exit(1)
"""
RUNNER = """
import subprocess, sys, time
from pathlib import Path
from moaa.lifeline import runner
with runner(Path(sys.argv[1])):
    subprocess.run([sys.executable, "-c", *sys.argv[2:]])
"""


def stage(folder: Path, needs_s: float) -> subprocess.Popen[bytes]:
    """A stage at work that needs some time to write its record."""
    script = [sys.executable, "-c", STAGE, str(folder), str(needs_s)]
    # As Kubeflow's local runner starts stages: through a shell.
    process = subprocess.Popen(["sh", "-c", '"$0" "$@"', *script], cwd=ROOT)
    until((folder / "up").exists)
    return process


def test_a_runner_that_leaves_waits_until_its_stage_has_written_its_record(tmp_path: Path) -> None:
    """Only then may the local S3 stop: before, the stage tried for two minutes, and its record said
    `running` for ever."""
    with runner(tmp_path):
        process = stage(tmp_path, 0.5)
    assert (tmp_path / "record").exists()
    assert process.wait(60) == 1
    assert RUNNER_ENV not in os.environ


def test_a_runner_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "WAIT_S", 0.1)
    with runner(tmp_path):
        process = stage(tmp_path, 3)
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_stage_stops_when_its_runner_is_killed(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", RUNNER, str(tmp_path), STAGE, str(tmp_path), "0"], cwd=ROOT
    )
    until((tmp_path / "up").exists)
    process.kill()
    process.wait()
    until((tmp_path / "record").exists)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_does_not_break_off_what_the_first_one_began(number: int) -> None:
    before = signal.getsignal(number)
    released = []

    def stage() -> None:
        with stoppable():
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGINT)
                released.append("engine")

    with pytest.raises(Terminated):
        stage()
    assert released == ["engine"]
    assert signal.getsignal(number) == before


def test_no_signal_breaks_off_the_writing_of_a_record() -> None:
    with stoppable() as stop:
        stop.ignore()
        os.kill(os.getpid(), signal.SIGTERM)
        written = "whole"
    assert written == "whole"
