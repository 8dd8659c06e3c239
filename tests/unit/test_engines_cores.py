"""A core has one holder on the machine; locks die with their holder."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from moaa.engines import cores
from moaa.errors import EngineError


@pytest.fixture(autouse=True)
def _own_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks of this test only, and four cores whatever the machine has."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cores, "available", lambda: [0, 1, 2, 3])


def test_holders_never_share_a_core() -> None:
    with cores.reserve(3, "a") as a, cores.reserve(1, "b") as b:
        assert (a, b) == ([0, 1, 2], [3])
        assert cores.attempt(1, "c") is None
    assert [*cores.available()] == [0, 1, 2, 3]


def test_who_waits_holds_nothing() -> None:
    with cores.reserve(2, "a"):
        assert cores.attempt(3, "b") is None
        with cores.reserve(2, "c") as c:
            assert c == [2, 3]


def test_who_waits_says_for_whom_and_goes_on() -> None:
    notes: list[str] = []
    first = cores.attempt(4, "training sft")
    assert first is not None
    got = threading.Event()

    def wait() -> None:
        with cores.reserve(2, "engines of smol", notes.append):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    while not notes:
        time.sleep(0.01)
    assert not got.is_set()
    assert notes[0].startswith("engines of smol waits for 2 cores, held by training sft (process ")
    assert notes[0].count("training sft") == 1
    first.release()
    assert got.wait(20)
    thread.join()
    assert notes[-1] == ""


def test_more_cores_than_there_are_is_an_error_not_a_wait() -> None:
    with pytest.raises(EngineError, match="needs 5 cores, but this process may run on 4"):
        cores.attempt(5, "a")


def test_a_killed_process_gives_its_cores_back(tmp_path: Path) -> None:
    script = (
        "import tempfile, time; from moaa.engines import cores\n"
        f"tempfile.tempdir = {str(tmp_path)!r}\n"
        "cores.available = lambda: [0, 1, 2, 3]\n"
        "held = cores.attempt(4, 'other'); print(held.cores, flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        try:
            assert other.stdout is not None
            assert other.stdout.readline() == "[0, 1, 2, 3]\n"
            assert cores.attempt(1, "ours") is None
            assert cores.holders() == [f"other (process {other.pid})"]
        finally:
            other.kill()
    assert cores.attempt(4, "ours") is not None


def test_a_child_of_the_holder_does_not_keep_the_core() -> None:
    held = cores.attempt(4, "a")
    assert held is not None
    with subprocess.Popen(["sleep", "60"]) as child:
        try:
            held.release()
            assert cores.attempt(4, "b") is not None
        finally:
            child.kill()
