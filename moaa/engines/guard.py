"""Runs a command in its own process group and leaves no process of the group behind.

    python guard.py PARENT_PID GRACE_S COMMAND ARG...

vLLM starts further processes, which outlive a killed server or a killed parent. This small process
stops the whole group in three cases: PARENT_PID is gone (SIGKILL at once), it gets SIGTERM or
SIGINT (SIGTERM, then SIGKILL after GRACE_S), or the command itself has ended. Its exit status is
the command's, or 128 + n for signal n. It uses only the standard library and imports nothing of
moaa: it is started as a file, in 20 ms.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
POLL_S = 0.5


def guard(parent: int, grace_s: float, command: Sequence[str]) -> int:
    """Run the command until it ends or has to stop; return its exit status."""
    prctl = ctypes.CDLL(None).prctl
    # Orphans of the group become our children, so that we notice when the last one is gone.
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    awaited = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, awaited)

    def in_child() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, [])
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

    child = subprocess.Popen(command, start_new_session=True, preexec_fn=in_child)
    stop_at: float | None = None
    while child.poll() is None:
        got = signal.sigtimedwait(awaited, POLL_S)
        if got and got.si_signo != signal.SIGCHLD and stop_at is None:
            stop_at = time.monotonic() + grace_s
            _signal_group(child.pid, signal.SIGTERM)
        if os.getppid() != parent or (stop_at is not None and time.monotonic() > stop_at):
            _signal_group(child.pid, signal.SIGKILL)
    _signal_group(child.pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _signal_group(pgid: int, signum: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pgid, signum)


if __name__ == "__main__":
    sys.exit(guard(int(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]))
