"""One attempt at a stage of a run: its recipe, its counts, and the record that it writes."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, NoReturn

from moaa import records
from moaa.artifacts import Manifest
from moaa.declaration import Declaration
from moaa.errors import MoaaError, StoreAway, StoreError, readable
from moaa.kubernetes.names import RUN_ENV, STAGE_ENV
from moaa.ledger import Ledger
from moaa.lifeline import POLL_S, Stop, Terminated, stoppable
from moaa.progress.messages import final_error, log, say, show
from moaa.recipe.load import digest_of
from moaa.recipe.schema import Recipe
from moaa.records import Record, StageError
from moaa.store import Missing, Store
from moaa.task import Task

PREFLIGHT = "preflight"


@dataclass
class Attempt:
    """One attempt at a stage while it runs: its recipe, its store, and what it counts."""

    recipe: Recipe
    store: Store
    record: Record
    ledger: Ledger = field(default_factory=Ledger)

    def done(self, manifest: Manifest, *, reused: bool) -> None:
        """Record that the stage has its result."""
        self.record["status"] = "reused" if reused else "done"
        self.record["manifest"] = manifest.model_dump(mode="json")
        self.record["ledger"] = manifest.ledger

    def also_counted(self, events: Mapping[str, int]) -> None:
        """Add events of this run to those of the result. They go only into the run's record."""
        ledger = self.record["ledger"]
        self.record["ledger"] = {**ledger, "events": {**ledger.get("events", {}), **events}}


@contextmanager
def recorded(stage: Declaration, task: Task, summary: str = "") -> Iterator[Attempt]:
    """Keep the record of a stage up to date while it runs. If the stage fails, exit with a readable
    message.

    A Markdown page is written to the file `summary`.
    """
    show()
    # The holder of the leases on engines and trainings.
    os.environ.update({RUN_ENV: task.run_id, STAGE_ENV: stage.name})
    writer = _Writer(stage, task.run_id, summary)
    with stoppable() as stop:
        try:
            attempt = writer.begin(task)
            with writer.beating(stop):
                yield attempt
            stop.ignore()
        except BaseException as error:
            stop.ignore()
            _end_failed(stage, writer, readable(error))
        if unwritten := writer.end():
            final_error(
                f"{stage.name} is done, but its record could not be written: {unwritten}\n"
                "  Run again: the result is kept.",
                outside=unwritten.outside,
            )
            raise SystemExit(unwritten.exit_status)


def _end_failed(stage: Declaration, writer: _Writer, error: BaseException) -> NoReturn:
    """Write why the stage failed, and exit."""
    unwritten = writer.failed(error)
    if unwritten and str(unwritten) != str(error):
        log.warning(f"{stage.name}: its record could not be written: {unwritten}")
    if _stopped(error):
        final_error(f"{stage.name} was terminated; run again and it continues where it was")
    elif isinstance(error, MoaaError):
        final_error(f"{stage.name} failed: {error}", outside=error.outside)
        raise SystemExit(error.exit_status) from None
    else:
        raise error
    raise SystemExit(1) from None


class _Writer:
    """Writes the record of one attempt at a stage."""

    def __init__(self, stage: Declaration, run_id: str, summary: str) -> None:
        self._stage = stage
        self._summary = summary
        self._began = time.time()
        self._record = Record(
            run_id=run_id,
            stage=stage.name,
            status="running",
            started=_utc(self._began),
            ended=None,
            seconds=0.0,
            manifest=None,
            error=None,
            ledger={},
        )
        self._attempt: Attempt | None = None

    def begin(self, task: Task) -> Attempt:
        loaded = task.load().recipe
        # Preflight finds a wrong address at once. Any other stage waits for a store that does not
        # answer.
        store = Store.of(loaded.store, reached=self._stage.name != PREFLIGHT)
        self._attempt = Attempt(loaded, store, self._record)
        self._record["name"] = loaded.name
        if loaded.rounds.round > 1:
            self._record["round"] = loaded.rounds.round
        else:
            self._record["recipe"] = digest_of(loaded)
        self._record["attempt"] = self._attempts_before(store) + 1
        self._put(self._attempt.store)
        return self._attempt

    @contextmanager
    def beating(self, stop: Stop) -> Iterator[None]:
        """Show every minute in the record that the stage is running: a killed process cannot do
        this.

        When the stage is asked to stop, the record says so at once. Kubeflow's launcher kills the
        process 0.2 to 1 s later, long before its engines have stopped.
        """
        over = threading.Event()
        beating = threading.Thread(target=self._beat, args=(over, stop), daemon=True, name="beat")
        beating.start()
        try:
            yield
        finally:
            over.set()
            beating.join()

    def _beat(self, over: threading.Event, stop: Stop) -> None:
        due = time.monotonic() + records.BEAT_S
        while not over.wait(POLL_S):
            if stop.asked:
                self._show_life("terminated", _described(Terminated()))
                return
            if time.monotonic() >= due:
                self._show_life("running", None)
                due = time.monotonic() + records.BEAT_S

    def _show_life(
        self, status: Literal["running", "terminated"], error: StageError | None
    ) -> None:
        assert self._attempt
        now = time.time()
        record = self._record.copy()
        record["status"], record["error"], record["beat"] = status, error, _utc(now)
        record["seconds"] = round(now - self._began, 3)
        with suppress(StoreError):  # the next one may be written
            store = Store.of(self._attempt.recipe.store)  # which does not wait for a store
            store.put(self._uri(store), records.to_json(record))

    def _attempts_before(self, store: Store) -> int:
        try:
            earlier = records.from_json(store.get(self._uri(store)), self._record["run_id"])
            return earlier.get("attempt", 1)
        except (Missing, ValueError, KeyError):
            return 0

    def failed(self, error: BaseException) -> StoreError | None:
        """Write why the stage failed. Returns the error if the store did not take the record."""
        self._record["status"] = "terminated" if _stopped(error) else "failed"
        self._record["error"] = _described(error)
        if self._attempt:
            self._record["ledger"] = self._attempt.ledger.to_json()
            if isinstance(error, StoreAway) or _stopped(error):
                # There is no time to wait for the store, or that was tried already.
                self._attempt.store = Store.of(self._attempt.recipe.store)
        return self.end()

    def end(self) -> StoreError | None:
        """Write the record and the summary. Returns the error
        if the store did not take the record."""
        now = time.time()
        self._record["ended"] = _utc(now)
        self._record["seconds"] = round(now - self._began, 3)
        unwritten = None
        try:
            if self._attempt:
                self._put(self._attempt.store)
        except StoreError as error:
            unwritten = error
        if self._summary and self._record["status"] != "running":
            self._summarize()
        return unwritten

    def _put(self, store: Store) -> None:
        store.put(self._uri(store), records.to_json(self._record))

    def _uri(self, store: Store) -> str:
        number = self._record.get("round", 1)
        return records.address(store, self._record["run_id"], self._stage.name, number)

    def _summarize(self) -> None:
        from moaa.report import stage_markdown

        try:
            page = stage_markdown(self._record, self._stage)
            Path(self._summary).write_text(page, encoding="utf-8", errors="replace")
        except OSError as error:
            say(f"{self._stage.name}: its summary could not be written: {error}")


def _stopped(error: BaseException) -> bool:
    """Return whether the stage was stopped from outside, even if another error was raised last."""
    # An error that was kept and raised again may form a circle of contexts.
    left, seen = [error], set()
    while left:
        each = left.pop()
        if isinstance(each, Terminated | KeyboardInterrupt):
            return True
        if id(each) not in seen:
            seen.add(id(each))
            left += [each.__context__] if each.__context__ else []
            left += each.exceptions if isinstance(each, BaseExceptionGroup) else ()
    return False


def _described(error: BaseException) -> StageError:
    if _stopped(error):
        return StageError(type="Terminated", message="the stage was terminated before it was done")
    described = StageError(type=type(error).__name__, message=str(error))
    if not isinstance(error, MoaaError):
        described["traceback"] = "".join(traceback.format_exception(error))
    return described


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
