"""A stage stops on SIGTERM or Ctrl-C, and when the process that runs the pipeline is gone.

    with runner(folder): …    in the process that runs the pipeline; at the end it waits for stages
    with stoppable(): …       in the process of each stage

Two locks in the folder of a local run connect them, because the local runner starts a stage through
a shell: the runner holds `runner.lock`, each stage holds `stages.lock` (shared). A process that
dies has left its locks.
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
"""The folder of a local run: its stages inherit it."""
WAIT_S = 20.0
"""How long a runner that leaves waits for its stages: they write their records."""
POLL_S = 0.2


class Terminated(BaseException):
    """SIGTERM or Ctrl-C arrived. What is open is released; nothing is committed."""


class Superseded(Terminated):
    """Another process has finished the same work. What is open is released; its result is used."""


@contextlib.contextmanager
def runner(folder: Path) -> Iterator[None]:
    """Run stages that stop when this ends; they are waited for, `WAIT_S` at the most."""
    # A file of its own: an earlier runner's stage that is still at work keeps the earlier file.
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
    released. Later ones are ignored: they would break off just that.

    `Stop.ignore` ignores the first one too, from then on: a record is being written. In a local run
    this process also stops when its runner leaves or is killed, and the runner waits until this
    ends.
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
    """A handler of signals that raises Terminated the first time."""

    def __init__(self) -> None:
        self.asked = False
        """Whether Terminated was raised."""
        self.superseded = False
        """The first signal is to raise Superseded: it is our own."""
        self._ignored = False

    def ignore(self) -> None:
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
"""That of the stage that this process runs."""


def supersede() -> None:
    """Raise Superseded in the main thread, if that is inside `stoppable`. Called by another one."""
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
