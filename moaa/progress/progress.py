"""Progress of a stage: a live view on a terminal, a message every few seconds elsewhere.

    with Progress("generate", "conversations") as progress:
        progress.total(24)
          progress.advance(10, journaled=True)    # by an earlier attempt: not part of the rate
        progress.flight("smol", 18)
        progress.advance()

Workers only change counters (thread-safe, about a microsecond); a timer thread draws the view.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self

from moaa.progress.screen import Log, Terminal, View, screen

WINDOW_S = 30.0
WINDOW_UNITS = 10
"""The rate is that of the last 30 s, or of the last 10 units if those took longer."""


class Progress:
    """Counters of one stage, shown while they change. Without `with` it only counts."""

    def __init__(self, stage: str, unit: str = "rows") -> None:
        self._lock = threading.Lock()
        self._stage, self._unit = stage, unit
        self._started = time.monotonic()
        self.on_point: Callable[[int, Mapping[str, object], str], None] | None = None
        """Is called at each step of a training, if set."""
        self._total: int | None = None
        self._done = self._journaled = self._rejected = 0
        self._note = ""
        self._flight: dict[str, int] = {}
        self._tokens: Counter[str] = Counter()
        self._gauges: dict[str, float] = {}
        self._answered: dict[str, int] = {}
        self._samples: deque[tuple[float, int, dict[str, int]]] = deque()
        self._active = False
        self._screen: Log | Terminal | None = None
        self._silent = False
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def silent(cls, stage: str = "", unit: str = "rows") -> Progress:
        """A progress that counts and shows nothing."""
        progress = cls(stage, unit)
        progress._silent = True
        return progress

    # Called by workers.

    def total(self, n: int) -> None:
        """Set the number of units of the whole stage."""
        self._total = n

    def advance(self, k: int = 1, *, journaled: bool = False) -> None:
        """Count k more units as done. `journaled`: by an earlier attempt, so not in the rate."""
        with self._lock:
            self._done += k
            self._journaled += k if journaled else 0
            if not journaled:
                self._begin()

    def rejected(self, k: int = 1) -> None:
        """Count k more units as rejected."""
        with self._lock:
            self._rejected += k

    def note(self, text: str) -> None:
        """Show what is being done or waited for; an empty text removes it.

        A log shows it at once, unless only its numbers changed.
        """
        text = " ".join(text.split())
        changed = _without_numbers(text) != _without_numbers(self._note)
        self._note = text
        if changed and text and self._screen is not None:
            self._screen.note(self.view())

    def flight(self, model: str, n: int) -> None:
        """Set how many calls to the model are in flight."""
        with self._lock:
            self._flight[model] = n

    def answered(self, model: str, n: int) -> None:
        """Set how many calls the model has answered."""
        with self._lock:
            self._answered[model] = n

    def tokens(self, model: str, n: int) -> None:
        """Count n more tokens of the model, or of the training."""
        with self._lock:
            self._tokens[model] += n
            self._begin()

    def point(self, step: int, values: Mapping[str, object], part: str = "") -> None:
        """Pass on the numbers of one step of a training, or of a `part` of it."""
        if self.on_point:
            self.on_point(step, values, part)

    def gauge(self, name: str, value: float) -> None:
        """Set a number that is shown under this name."""
        with self._lock:
            self._gauges[name] = value

    def _begin(self) -> None:
        """Start the clock of the rate at the first answer: the start of engines does not count."""
        if not self._active:
            self._active = True
            self._sample()

    def _sample(self) -> None:
        self._samples.append((time.monotonic(), self._done - self._journaled, dict(self._tokens)))

    # For the display.

    def view(self) -> View:
        """Return the current state, with rates over the sliding window."""
        with self._lock:
            now, fresh = time.monotonic(), self._done - self._journaled
            if self._active:
                if now - self._samples[-1][0] >= 0.2:
                    self._sample()
                _slide(self._samples, now, fresh)
            rate, token_rate = None, {}
            if self._active and (span := now - self._samples[0][0]) >= 1.0:
                _, then, tokens_then = self._samples[0]
                rate = (fresh - then) / span if fresh else None
                token_rate = {
                    m: (n - tokens_then.get(m, 0)) / span for m, n in self._tokens.items()
                }
            return View(
                self._stage,
                self._unit,
                self._done,
                self._total,
                self._rejected,
                rate,
                now - self._started,
                self._note,
                dict(self._flight),
                dict(self._tokens),
                token_rate,
                dict(self._gauges),
                dict(self._answered),
            )

    def __enter__(self) -> Self:
        self._started = time.monotonic()
        if not self._silent:
            self._screen = screen()
            self._thread = threading.Thread(target=self._show, name="progress", daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is None or self._screen is None:
            return
        self._stop.set()
        self._thread.join()
        self._screen.end(self.view(), failed=kind is not None)
        self._screen = self._thread = None

    def _show(self) -> None:
        assert self._screen is not None
        while not self._stop.wait(self._screen.every_s):
            self._screen.show(self.view())


def _slide(samples: deque[tuple[float, int, dict[str, int]]], now: float, done: int) -> None:
    """Drop samples older than the window; thin the others if a slow stage makes it long."""
    while (
        len(samples) > 2
        and now - samples[1][0] >= WINDOW_S
        and done - samples[1][1] >= WINDOW_UNITS
    ):
        samples.popleft()
    if len(samples) > 600:
        first, *others = samples
        samples.clear()
        samples.extend([first, *others[1::2]])


def _without_numbers(text: str) -> str:
    return re.sub(r"\d[\d.,:]*", "0", text)
