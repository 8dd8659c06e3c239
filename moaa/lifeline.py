"""Stops a stage on SIGTERM or Ctrl-C, and when the process that runs the pipeline is gone.

     with runner(folder): …    in the process that runs the pipeline; at its end it waits for stages
    with stoppable(): …       in the process of each stage

Two locks in the folder of a local run connect them, because the local runner starts a stage through
a shell. The runner holds `runner.lock`, each stage holds `stages.lock` (shared). A process that
dies loses its locks.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

RUNNER_ENV = "MOAA_RUNNER"
"""The variable with the folder of a local run; its stages inherit it."""
WAIT_S = 20.0
"""How long a runner waits for its stages at its end: they write their records."""
POLL_S = 0.2


class Terminated(BaseException):
    """SIGTERM or Ctrl-C arrived. Resources are released; nothing is committed."""


class Superseded(Terminated):
    """Another process has finished the same work. Resources are released; its result is used."""


@contextlib.contextmanager
def runner(folder: Path) -> Iterator[None]:
    """Run stages that stop when this context ends; it waits for them, at most `WAIT_S`."""
    # A new file each time: a stage of an earlier runner that still works keeps the earlier file.
    (folder / "runner.lock").unlink(missing_ok=True)
    before = os.environ.get(RUNNER_ENV)
    with (folder / "runner.lock").open("w") as ours, (folder / "stages.lock").open("w") as stages:
        fcntl.flock(ours, fcntl.LOCK_EX)
        os.environ[RUNNER_ENV] = str(folder.absolute())
        try:
            yield
        finally:
            if before is None:
                del os.environ[RUNNER_ENV]
            else:
                os.environ[RUNNER_ENV] = before
            fcntl.flock(ours, fcntl.LOCK_UN)
            deadline = time.monotonic() + WAIT_S
            while not _free(stages) and time.monotonic() < deadline:
                time.sleep(POLL_S / 4)


@contextlib.contextmanager
def stoppable() -> Iterator[Stop]:
    """Raise Terminated on the first SIGTERM or Ctrl-C, so that engines stop and leases are
    released. Later signals are ignored: they would interrupt that.

    After `Stop.ignore` the first signal is ignored too: a record is being written. In a local run
    this process also stops when its runner leaves or is killed, and the runner waits until this
    process ends.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Stop()
        return
    global _stop
    stop = _stop = Stop()
    handlers = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    with contextlib.ExitStack() as held:
        if folder := os.environ.get(RUNNER_ENV):
            stages = held.enter_context((Path(folder) / "stages.lock").open("w"))
            fcntl.flock(stages, fcntl.LOCK_SH)
            ours = held.enter_context((Path(folder) / "runner.lock").open())
            over = threading.Event()
            watching = threading.Thread(
                target=_watch, args=(ours, over), daemon=True, name="lifeline"
            )
            watching.start()
            held.callback(watching.join)
            held.callback(over.set)
        try:
            yield stop
        finally:
            _stop = None
            for number, handler in handlers.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Let SIGTERM stop a command as Ctrl-C does."""

    def interrupt(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


class Stop:
    """A signal handler that raises Terminated the first time."""

    def __init__(self) -> None:
        self.asked = False
        """Whether Terminated was raised."""
        self.superseded = False
        """Whether the first signal raises Superseded: it is our own signal."""
        self._ignored = False

    def ignore(self) -> None:
        """Ignore all signals from now on."""
        self._ignored = True

    def __call__(self, signum: int, frame: object) -> None:
        if self.asked or self._ignored:
            return
        if self.superseded:
            self._ignored = True
            raise Superseded
        self.asked = True
        raise Terminated


_stop: Stop | None = None
"""The handler of the stage that this process runs."""


def supersede() -> None:
    """Raise Superseded in the main thread if it is inside `stoppable`.
    Another thread calls this."""
    if _stop is not None:
        _stop.superseded = True
        os.kill(os.getpid(), signal.SIGTERM)


def _watch(runner: IO[str], over: threading.Event) -> None:
    while not over.wait(POLL_S):
        if _free(runner, fcntl.LOCK_SH):
            os.kill(os.getpid(), signal.SIGTERM)
            return


def _free(file: IO[str], lock: int = fcntl.LOCK_EX) -> bool:
    """Return whether nobody holds the lock of this file."""
    try:
        fcntl.flock(file, lock | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    fcntl.flock(file, fcntl.LOCK_UN)
    return True
