"""One attempt at a stage of a run: its recipe, its counts, and the record that it leaves."""

from __future__ import annotations

import hashlib
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

from moaa import records
from moaa.artifacts import Manifest
from moaa.declaration import Declaration
from moaa.errors import ArtifactError, MoaaError, StoreAway, StoreError
from moaa.kubernetes.names import RUN_ENV, STAGE_ENV
from moaa.ledger import Ledger
from moaa.lifeline import Terminated, stoppable
from moaa.progress.messages import final_error, log, say, show
from moaa.recipe.load import Loaded, load_text
from moaa.recipe.schema import Recipe
from moaa.recipe.secrets import DESTINATIONS_ENV, refuse_other_destinations
from moaa.records import Record, StageError
from moaa.store import Store

PREFLIGHT = "preflight"


@dataclass
class Attempt:
    """One attempt at a stage of a run, while it runs: its recipe, its store, what it counts."""

    recipe: Recipe
    store: Store
    record: Record
    ledger: Ledger = field(default_factory=Ledger)

    def done(self, manifest: Manifest, *, reused: bool) -> None:
        """The stage has its result."""
        self.record["status"] = "reused" if reused else "done"
        self.record["manifest"] = manifest.model_dump(mode="json")
        self.record["ledger"] = manifest.ledger


@contextmanager
def recorded(stage: Declaration, recipe: str, run_id: str, summary: str = "") -> Iterator[Attempt]:
    """Keep the record of a stage true while it runs, and exit with a readable message if it fails.

    `recipe` is YAML text, or its s3:// address. A Markdown page goes to the file `summary`.
    """
    show()
    # Who holds the leases of engines and trainings.
    os.environ.update({RUN_ENV: run_id, STAGE_ENV: stage.name})
    writer = _Writer(stage, run_id, summary)
    with stoppable() as ignore_signals:
        try:
            attempt = writer.begin(recipe)
            yield attempt
            ignore_signals()
        except BaseException as error:
            ignore_signals()
            _end_failed(stage, writer, error)
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

    def begin(self, recipe: str) -> Attempt:
        loaded = read_recipe(recipe).recipe
        # Preflight finds a wrong address at once. Any other stage waits for a store that is away.
        store = Store.of(loaded.store, reached=self._stage.name != PREFLIGHT)
        self._attempt = Attempt(loaded, store, self._record)
        self._put(self._attempt.store)
        return self._attempt

    def failed(self, error: BaseException) -> StoreError | None:
        """Write why the stage failed. Returns what kept the record from the store."""
        self._record["status"] = "terminated" if _stopped(error) else "failed"
        self._record["error"] = _described(error)
        if self._attempt:
            self._record["ledger"] = self._attempt.ledger.to_json()
            if isinstance(error, StoreAway) or _stopped(error):
                # There is no time to wait for the store, or it was waited for already.
                self._attempt.store = Store.of(self._attempt.recipe.store)
        return self.end()

    def end(self) -> StoreError | None:
        """Write the record and the summary. Returns what kept the record from the store."""
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
        uri = f"{store.root}/runs/{self._record['run_id']}/{self._stage.name}.json"
        store.put(uri, records.to_json(self._record))

    def _summarize(self) -> None:
        from moaa.report import stage_markdown

        try:
            page = stage_markdown(self._record, self._stage)
            Path(self._summary).write_text(page, encoding="utf-8", errors="replace")
        except OSError as error:
            say(f"{self._stage.name}: its summary could not be written: {error}")


def read_recipe(argument: str) -> Loaded:
    """Return the recipe that a task was given: a text, or its address `s3://…/<sha256>.yaml`.

    In a task of a compiled pipeline the recipe may send no key elsewhere than the compiled one.
    Errors name the address, or the file in `MOAA_RECIPE`, in which a local run keeps the text.
    Raises ArtifactError if the text at the address does not have the digest in its name.
    """
    loaded = _loaded(argument)
    if compiled := os.environ.get(DESTINATIONS_ENV):
        refuse_other_destinations(loaded.recipe, compiled)
    return loaded


def _loaded(argument: str) -> Loaded:
    if not argument.startswith("s3://"):
        return load_text(argument, name=os.environ.get("MOAA_RECIPE", "recipe"))
    data = Store(argument.rsplit("/", 1)[0]).get(argument)
    digest = argument.rsplit("/", 1)[1].removesuffix(".yaml")
    if hashlib.sha256(data).hexdigest() != digest:
        raise ArtifactError(
            f"the recipe at {argument} does not have the digest in its name: it was changed. "
            "Submit the run again."
        )
    return load_text(data.decode(), name=argument)


def _stopped(error: BaseException) -> bool:
    """Return whether the stage was stopped from outside, whatever was raised on the way out."""
    # An error that was kept and raised again may be in a circle of contexts.
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
