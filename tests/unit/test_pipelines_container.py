"""The first process of a container ends last: its stages are told, and get the time to give back
what they hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

SCRIPT = """
import os, subprocess, sys, time
from moaa.pipelines import incluster
folder = sys.argv[1]
# As the local runner starts stages: through a shell, in a process of its own.
child = f"trap 'sleep {sys.argv[3]}; touch {folder}/told; exit 0' TERM; touch {folder}/up; "
child += "while :; do sleep 0.05; done"
subprocess.Popen(["sh", "-c", child])
while not os.path.exists(f"{folder}/up"):
    time.sleep(0.01)
incluster.CHILDREN_S = float(sys.argv[2])
assert os.getpid() == 1
incluster.end_children()
"""
UNSHARE = ["unshare", "--fork", "--pid", "--mount-proc"]


def first_process(folder: Path, patience_s: float, needs_s: float) -> None:
    if subprocess.run([*UNSHARE, "true"], capture_output=True).returncode:
        pytest.skip("needs the right to make a PID namespace (root)")
    subprocess.run(
        [*UNSHARE, sys.executable, "-c", SCRIPT, str(folder), str(patience_s), str(needs_s)],
        check=True,
        timeout=60,
        cwd=ROOT,
    )


def test_its_children_are_told_and_waited_for(tmp_path: Path) -> None:
    first_process(tmp_path, 20, needs_s=0.5)
    assert (tmp_path / "told").exists()


def test_not_for_ever(tmp_path: Path) -> None:
    first_process(tmp_path, 0.1, needs_s=300)  # which waits 60 s for its end
    assert not (tmp_path / "told").exists()


def test_elsewhere_nobody_is_told_anything() -> None:
    from moaa.pipelines import incluster

    other = subprocess.Popen(["sleep", "30"])
    try:
        incluster.end_children()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()
