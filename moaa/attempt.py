"""One attempt at a stage of a run: its recipe, its counts, and the record that it leaves."""

from __future__ import annotations

import hashlib
import json
import os
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from moaa.artifacts import Manifest
from moaa.declaration import Declaration
from moaa.errors import ArtifactError, MoaaError, StoreError
from moaa.kubernetes.names import RUN_ENV, STAGE_ENV
from moaa.ledger import Ledger
from moaa.lifeline import Terminated, end_with_runner
from moaa.progress.messages import final_error, log, say, show
from moaa.recipe.load import Loaded, load_text
from moaa.recipe.schema import Recipe
from moaa.records import Record, StageError
from moaa.store import Store


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
    end_with_runner()
    # Who holds the leases of engines and trainings.
    os.environ.update({RUN_ENV: run_id, STAGE_ENV: stage.name})
    writer = _Writer(stage, run_id, summary)
    try:
        attempt = writer.begin(recipe)
        yield attempt
    except BaseException as error:
        unwritten = writer.failed(error)
        if unwritten and str(unwritten) != str(error):
            log.warning(f"{stage.name}: its record could not be written: {unwritten}")
        if isinstance(error, MoaaError):
            final_error(f"{stage.name} failed: {error}")
        elif isinstance(error, Terminated | KeyboardInterrupt):
            final_error(f"{stage.name} was stopped; run again and it continues where it was")
        else:
            raise
        raise SystemExit(1) from None
    if unwritten := writer.end():
        final_error(
            f"{stage.name} is done, but its record could not be written: {unwritten}\n"
            "  Run again: the result is kept."
        )
        raise SystemExit(1)


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
        self._attempt = Attempt(loaded, Store.of(loaded.store), self._record)
        self._put(self._attempt.store)
        return self._attempt

    def failed(self, error: BaseException) -> StoreError | None:
        """Write why the stage failed. Returns what kept the record from the store."""
        self._record["status"] = "failed"
        self._record["error"] = _described(error)
        if self._attempt:
            self._record["ledger"] = self._attempt.ledger.to_json()
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
        store.put(uri, json.dumps(self._record, ensure_ascii=False).encode())

    def _summarize(self) -> None:
        from moaa.report import stage_markdown

        try:
            Path(self._summary).write_text(stage_markdown(self._record, self._stage))
        except OSError as error:
            say(f"{self._stage.name}: its summary could not be written: {error}")


def read_recipe(argument: str) -> Loaded:
    """Return the recipe that a task was given: a text, or its address `s3://…/<sha256>.yaml`.

    Errors name the address, or the file in `MOAA_RECIPE`, in which a local run keeps the text.
    Raises ArtifactError if the text at the address does not have the digest in its name.
    """
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


def _described(error: BaseException) -> StageError:
    if isinstance(error, Terminated | KeyboardInterrupt):
        return StageError(type="Terminated", message="the stage was stopped before it was done")
    described = StageError(type=type(error).__name__, message=str(error))
    if not isinstance(error, MoaaError):
        described["traceback"] = "".join(traceback.format_exception(error))
    return described


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
