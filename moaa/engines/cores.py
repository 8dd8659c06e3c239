"""CPU cores of this machine, shared by all processes of moaa: a process that works on a core holds
its lock.

Two engines (or an engine and a training) on the same core slow each other down by two thirds, so a
core has one holder. A lock ends with its process: nothing must be cleaned up after a crash.

    with reserve(2, "training sft", progress.note) as cores:     # waits; [0, 1]
        ...
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from moaa.errors import EngineError

POLL_S = 0.5


def available() -> list[int]:
    """Return the cores that this process may run on."""
    return sorted(os.sched_getaffinity(0))


class Reservation:
    """Cores that are held until `release`."""

    def __init__(self, locks: dict[int, int]) -> None:
        self._locks = locks
        self.cores = sorted(locks)

    def release(self) -> None:
        """Give the cores back."""
        for lock in self._locks.values():
            os.close(lock)
        self._locks.clear()


def attempt(n: int, what: str) -> Reservation | None:
    """Reserve n cores at once, or return None if fewer are free.

    A process that waits holds no core, so there is no deadlock. `what` is shown to those that wait.
    Raises EngineError if this process may not run on that many cores.
    """
    if n > len(available()):
        raise EngineError(
            f"{what} needs {n} cores, but this process may run on {len(available())}. Ask for "
            "fewer."
        )
    locks: dict[int, int] = {}
    for core in available():
        if len(locks) == n:
            break
        lock = _open(core)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            continue
        os.ftruncate(lock, 0)
        os.pwrite(lock, f"{what} (process {os.getpid()})".encode(), 0)
        locks[core] = lock
    reservation = Reservation(locks)
    if len(locks) < n:
        reservation.release()
        return None
    return reservation


@contextmanager
def reserve(n: int, what: str, note: Callable[[str], None] | None = None) -> Iterator[list[int]]:
    """Wait for n cores and hold them while the context lasts; yield their numbers.

    During the wait, `note` (`Progress.note`) gets a text with the processes that hold the cores.
    """
    while (held := attempt(n, what)) is None:
        if note:
            note(waiting(n, what))
        time.sleep(POLL_S)
    if note:
        note("")
    try:
        yield held.cores
    finally:
        held.release()


def waiting(n: int, what: str) -> str:
    """Return a sentence: how many cores `what` waits for, and what holds them."""
    return f"{what} waits for {n} cores, held by {' and '.join(holders()) or 'no process now'}"


def holders() -> list[str]:
    """Return what holds the cores that this process may use, each holder once."""
    found = []
    for core in available():
        lock = _open(core)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            found.append(os.pread(lock, 200, 0).decode(errors="replace"))
        finally:
            os.close(lock)
    return list(dict.fromkeys(found))


def _open(core: int) -> int:
    """Open the lock file of a core. Any user of the machine may lock it."""
    folder = Path(tempfile.gettempdir(), "moaa-cores")
    if not folder.is_dir():
        folder.mkdir(exist_ok=True)
        with contextlib.suppress(PermissionError):
            folder.chmod(0o777)
    lock = os.open(folder / str(core), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with contextlib.suppress(PermissionError):
        os.fchmod(lock, 0o666)
    return lock
