"""Who works on a result, so that a stage that runs twice at the same time is not paid for twice.

    <uri>/owner/000001.json     {"holder", "who", "place", "pid", "beat"}

The holder of the highest number owns the work, and rewrites its file every few seconds. Others
wait. They judge by the changes that they see, not by the clocks of two machines. When nothing has
changed for `STANDS_STILL_S`, they write the next number, and exactly one of them can do so.

Two owners, after one was stopped for long, do no harm: results are committed once. An owner that
was replaced stops when the other one has its result. The same class is the lock of a model that is
retrained. There no object appears at the end, so those who wait have a time limit.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, Self

from moaa.errors import StoreError
from moaa.progress.messages import log, say
from moaa.store import Missing, Store
from moaa.store.bytes import object_of

BEAT_S: Final = 10.0
STANDS_STILL_S: Final = 60.0
LOOK_S: Final = 3.0
END_S: Final = 10.0


class Owner:
    """The right to work on a result. A context manager: leaving it gives the right back.

    `overtaken` is called at most once, from another thread: when another process has taken this
    work over and finished it.
    """

    def __init__(
        self, store: Store, uri: str, who: str, overtaken: Callable[[], None] = lambda: None
    ) -> None:
        self._overtaken = overtaken
        self._finished = ""
        self._other = ""
        self._store = store
        self._uri = uri
        self._holder = secrets.token_hex(8)
        self._about = {
            "holder": self._holder,
            "who": f"{who} ({socket.gethostname()}, process {os.getpid()})",
            "place": _place(),
            "pid": os.getpid(),
        }
        self._own = ""
        self._beats = 0
        self._stop = threading.Event()
        self._leaving = threading.Lock()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        with self._leaving:
            self._stop.set()
        if self._thread is None:
            return
        # A store that does not answer must not delay the end: the file is then left as it is.
        giving_back = threading.Thread(target=self._give_back, name="moaa-owner", daemon=True)
        giving_back.start()
        giving_back.join(END_S)

    def acquire(self, finished: str) -> bool:
        """Wait for the right to work. Return False if the object `finished` appears first."""
        self._finished = finished
        waits = f"works on the same result, {self._uri}: waiting for it"
        return self._wait(lambda: self._store.exists(finished), waits)

    def take(self, patience_s: float) -> str:
        """Wait up to `patience_s` for the right to work. Hold it until the context ends. Return who
        has it, as a text; empty if it is this owner."""
        deadline, looked = time.monotonic() + patience_s, False

        def over() -> bool:
            nonlocal looked
            before, looked = looked, True
            return before and time.monotonic() >= deadline

        waits = f"is at work below {self._uri}: waiting for at most {patience_s:.0f} s"
        return "" if self._wait(over, waits) else self._other

    def _wait(self, over: Callable[[], bool], waits: str) -> bool:
        """Wait for the right to work. Return False once `over()` is true."""
        seen, since, told = "", time.monotonic(), False
        while not over():
            looked = time.monotonic()
            newest, text = self._newest()
            if text != seen:
                seen, since = text, looked
            other = _read(text)
            still_s = looked - since
            if not newest or _is_gone(other) or still_s > STANDS_STILL_S:
                if self._take(newest):
                    if newest and still_s > STANDS_STILL_S:
                        say(f"{other.get('who')} has not moved for {still_s:.0f} s: taking over")
                    return True
                continue
            self._other = str(other.get("who"))
            if not told:
                told = True
                say(f"{self._other} {waits}")
            self._stop.wait(LOOK_S)
            if time.monotonic() - looked > 4 * LOOK_S:
                since = time.monotonic()  # the store did not answer
        return False

    def _take(self, newest: str) -> bool:
        number = int(newest.rsplit("/", 1)[1].removesuffix(".json")) + 1 if newest else 1
        own = f"{self._uri}/owner/{number:06d}.json"
        if not self._store.put_new(own, self._text()):
            return False
        self._own = own
        self._thread = threading.Thread(target=self._beat, name="moaa-owner", daemon=True)
        self._thread.start()
        return True

    def _beat(self) -> None:
        said = False
        while not self._stop.wait(BEAT_S):
            try:
                newest, text = self._newest()
                if newest != self._own and self._finished and self._store.exists(self._finished):
                    self._leave()
                    return
                if newest > self._own:
                    if not said:
                        said = True
                        log.warning(f"{_read(text).get('who')} has taken over {self._uri}")
                    continue
                self._beats += 1
                if not self._stop.is_set():
                    self._store.put(self._own, self._text())
            except StoreError as error:  # the next beat tries again
                log.debug(f"{self._own} was not renewed: {error}")

    def _leave(self) -> None:
        with self._leaving:
            if not self._stop.is_set():
                say(f"another run took over and finished {self._uri}: its result is used")
                self._overtaken()

    def _give_back(self) -> None:
        assert self._thread
        self._thread.join()
        with suppress(StoreError):
            self._store.delete(*(uri for uri in self._numbers() if uri <= self._own))

    def _text(self) -> bytes:
        return json.dumps({**self._about, "beat": self._beats}).encode()

    def _numbers(self) -> list[str]:
        return sorted(uri for uri, _ in self._store.list(f"{self._uri}/owner"))

    def _newest(self) -> tuple[str, str]:
        """Return the address and the text of the highest number; empty texts if there is none."""
        numbers = self._numbers()
        if not numbers:
            return "", ""
        try:
            return numbers[-1], self._store.get(numbers[-1]).decode(errors="replace")
        except Missing:  # it was removed after the list
            return "", ""


def _read(text: str) -> dict[str, Any]:
    try:
        return object_of(text)
    except ValueError:
        return {"who": "another run"}


def _place() -> str:
    """Return a name for the processes that this process can see."""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {Path('/proc/self/ns/pid').readlink()}"
    return socket.gethostname()


def _is_gone(other: dict[str, Any]) -> bool:
    """Return whether the other owner was a process on this machine that has ended."""
    if other.get("place") != _place() or not isinstance(other.get("pid"), int):
        return False
    try:
        os.kill(other["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
