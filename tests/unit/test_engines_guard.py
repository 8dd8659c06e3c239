"""Nothing of a guarded group is left behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from moaa.engines import guard
from tests.support.processes import child_of, group
from tests.support.waiting import until

FAMILY = (
    "import subprocess, sys, time; subprocess.Popen(['sleep', '600']); print('up', flush=True); {}"
)
STAYS = FAMILY.format("time.sleep(600)")
LEAVES = FAMILY.format("sys.stdin.readline()")


@contextmanager
def started(
    command: list[str], parent: int | None = None, grace_s: float = 5
) -> Iterator[subprocess.Popen[str]]:
    """A guard with the command below it; a guard that a failed test left is killed."""
    with subprocess.Popen(
        [sys.executable, "-S", guard.__file__, str(parent or os.getpid()), str(grace_s), *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def up(process: subprocess.Popen[str]) -> int:
    """The group's id, once its processes are there."""
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return child_of(process.pid)


def test_exit_status_is_the_commands() -> None:
    with started(["sh", "-c", "exit 7"]) as process:
        assert process.wait(30) == 7
    with started(["sh", "-c", "kill -9 $$"]) as process:
        assert process.wait(30) == 128 + signal.SIGKILL


def test_orphans_end_with_the_command() -> None:
    with started([sys.executable, "-c", LEAVES]) as process:
        pgid = up(process)
        assert len(group(pgid)) == 2
        process.communicate("go\n", timeout=30)
        assert process.returncode == 0
        assert group(pgid) == []


def test_sigterm_ends_the_group() -> None:
    with started([sys.executable, "-c", STAYS]) as process:
        pgid = up(process)
        process.terminate()
        assert process.wait(30) == 128 + signal.SIGTERM
        assert group(pgid) == []


def test_a_group_that_ignores_sigterm_is_killed_after_the_grace() -> None:
    stubborn = "trap '' TERM; sleep 600 & echo up; while :; do sleep 600; done"
    with started(["sh", "-c", stubborn], grace_s=0.5) as process:
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
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stdout is not None
            guard_pid = int(parent.stdout.readline())
            pgid = child_of(guard_pid)
            assert len(group(pgid)) == 2
        finally:
            parent.kill()
    until(lambda: not group(pgid) and not group(guard_pid), "the end of guard and group")


def test_a_parent_that_is_gone_already_is_noticed() -> None:
    with subprocess.Popen(["true"]) as gone:
        pass
    with started(["sleep", "600"], parent=gone.pid) as process:
        assert process.wait(30) == 128 + signal.SIGKILL
