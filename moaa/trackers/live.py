"""Sends the steps of a running training to the trackers, in a thread: a slow one delays nothing."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Final, Self

from moaa.recipe.trackers import Tracker
from moaa.store import Store
from moaa.trackers import tensorboard
from moaa.trackers.entry import Scalar, TrackerEntry
from moaa.trackers.write import write

EVERY_S: Final = 30.0


class Live:
    """In its context it sends new steps to each tracker from time to time.

    Afterwards call `rest`, which sends what is still missing.
    """

    def __init__(
        self,
        trackers: Sequence[Tracker],
        about: TrackerEntry,
        store: Store,
        every_s: float = EVERY_S,
    ) -> None:
        """`about` is an entry without numbers; its time is that of the first steps."""
        self._about, self._store, self._every_s = about, store, every_s
        self._points: list[Scalar] = []
        self._known: set[tuple[str, int]] = set()
        self._told = dict.fromkeys(range(len(trackers)), 0)
        """For each tracker: how many points it has."""
        self._before: dict[int, dict[str, set[int]]] = {number: {} for number in self._told}
        """For each tracker: the steps that it has from earlier attempts, once they were needed."""
        self._failed: set[int] = set()
        """Trackers whose failure was already reported."""
        self._trackers = list(trackers)
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="moaa-trackers", daemon=True)

    def point(self, step: int, values: Mapping[str, object], part: str = "") -> None:
        """Take the numbers of one step. A training that resumes repeats steps: the first ones stay,
        as trackers have them already."""
        found = [
            Scalar(f"{self._about.stage}/{part}{name}", step, float(value))
            for name, value in values.items()
            if isinstance(value, int | float) and math.isfinite(value)
        ]
        with self._lock:
            self._points += [each for each in found if (each.name, each.step) not in self._known]
            self._known |= {(each.name, each.step) for each in found}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join()

    def rest(self, entry: TrackerEntry) -> Counter[str]:
        """Send what a finished stage reports and each tracker does not have yet. Return the count
        of the trackers that failed."""
        failed: Counter[str] = Counter()
        for number, tracker in enumerate(self._trackers):
            heard = {(each.name, each.step) for each in self._points[: self._told[number]]}
            if tracker.kind == "tensorboard":
                heard = set()  # one complete file replaces the other
            left = tuple(each for each in entry.scalars if (each.name, each.step) not in heard)
            missed = write([tracker], replace(entry, scalars=left), self._store)
            failed += missed
            if tracker.kind == "tensorboard" and not missed:
                tensorboard.remove_others(entry, self._store)
        return failed

    def _run(self) -> None:
        while not self._over.wait(self._every_s):
            self._tell()

    def _tell(self) -> None:
        for number, tracker in enumerate(self._trackers):
            with self._lock:
                points = tuple(self._points)
            new = points[self._told[number] :]
            if not new:
                continue
            told = points if tracker.kind == "tensorboard" else new  # a file is written whole
            entry, said = replace(self._about, scalars=told), number in self._failed
            before = self._before[number]
            if write([tracker], entry, self._store, said=said, before=before):
                self._failed.add(number)
            else:
                self._told[number] = len(points)


def live(trackers: Sequence[Tracker], stage: str, project: str, run_id: str, store: Store) -> Live:
    """Return what reports the steps of this stage of the run to its trackers."""
    return Live(trackers, TrackerEntry(run_id, project, stage, (), {}, time.time()), store)
