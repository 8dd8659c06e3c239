"""Nothing of a guarded group is left behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from moaa.engines import guard
from tests.support.processes import child_of, group

FAMILY = (
    "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('up', flush=True); {}"
)
STAYS = FAMILY.format("time.sleep(600)")
LEAVES = FAMILY.format("sys.stdin.readline()")


def start(
    command: list[str], parent: int | None = None, grace_s: float = 5
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-S", guard.__file__, str(parent or os.getpid()), str(grace_s), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def up(process: subprocess.Popen[str]) -> int:
    """The group's id, once its processes are there."""
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return child_of(process.pid)


def test_exit_status_is_the_commands() -> None:
    assert start(["sh", "-c", "exit 7"]).wait(30) == 7
    assert start(["sh", "-c", "kill -9 $$"]).wait(30) == 128 + signal.SIGKILL


def test_orphans_end_with_the_command() -> None:
    process = start([sys.executable, "-c", LEAVES])
    pgid = up(process)
    assert len(group(pgid)) == 2
    process.communicate("go\n", timeout=30)
    assert process.returncode == 0
    assert group(pgid) == []


def test_sigterm_ends_the_group() -> None:
    process = start([sys.executable, "-c", STAYS])
    pgid = up(process)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGTERM
    assert group(pgid) == []


def test_a_group_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    process = start(
        ["sh", "-c", "trap '' TERM; sleep 600 & echo up; while :; do sleep 600; done"], grace_s=0.5
    )
    pgid = up(process)
    process.terminate()
    assert process.wait(30) == 128 + signal.SIGKILL
    assert group(pgid) == []


def test_a_killed_parent_takes_all_along() -> None:
    script = (
        "import subprocess, sys, os, time\n"
        f"command = [sys.executable, '-S', {guard.__file__!r}, str(os.getpid()), '5', "
        f"sys.executable, '-c', {STAYS!r}]\n"
        "p = subprocess.Popen(command, start_new_session=True, stdout=subprocess.PIPE)\n"
        "p.stdout.readline(); print(p.pid, flush=True); time.sleep(600)"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    guard_pid = int(parent.stdout.readline())
    pgid = child_of(guard_pid)
    assert len(group(pgid)) == 2
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 30
    while (group(pgid) or group(guard_pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert group(pgid) == []
    assert group(guard_pid) == []


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    gone = subprocess.Popen(["true"])
    gone.wait()
    process = start(["sleep", "600"], parent=gone.pid)
    assert process.wait(30) == 128 + signal.SIGKILL
