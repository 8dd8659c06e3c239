"""The frame every stage stands in: fingerprint -> reuse, or compute -> ledger -> manifest; and a
record for the report.

A stage is a function `(part, work) -> None` under `@stage(...)`. `part` is what it needs of the
recipe: that, its schema version and the fingerprints of its inputs are all that its own fingerprint
is made of. `work` is where it works: inputs, output, journal, ledger, progress, and the runtime
settings that never change a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import sys
import time
import traceback
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

from moaa.artifacts import Artifact, Output, Parent
from moaa.chat.message import Ask
from moaa.errors import ArtifactError, MoaaError, StoreError, TooManyRejected
from moaa.journal import Journal
from moaa.journal.usage import Usage
from moaa.kubernetes.names import RUN_ENV, STAGE_ENV
from moaa.ledger import Ledger
from moaa.lifeline import Terminated, end_with_runner
from moaa.progress import Progress
from moaa.recipe.load import Loaded, load_text
from moaa.recipe.schema import Model, Part, Pool, Recipe, Runtime
from moaa.recipe.schema import Store as StoreConfig
from moaa.store import Store

P = TypeVar("P", bound=Part)
Row = dict[str, Any]


@dataclass(slots=True)
class Work:
    """Where a stage works: what came in, where results go, who counts, and how models are served."""

    inputs: dict[str, Artifact]
    out: Output
    store: Store
    runtime: Runtime
    models: dict[str, Model]
    pools: dict[str, Pool]
    where: StoreConfig
    """The store as the recipe names it, for a training that opens it itself."""
    ledger: Ledger
    progress: Progress
    facts: dict[str, Any] = field(default_factory=dict)
    attempt: str = field(default_factory=lambda: secrets.token_hex(4))
    """Names what this attempt leaves beside the journal."""

    def ask_each(
        self,
        rows: Iterable[Row],
        work: Callable[[Row, Ask], Awaitable[Row]],
        *,
        models: Collection[str] | Mapping[str, Model],
        expected: Collection[str] = (),
    ) -> Iterator[tuple[Row, Row]]:
        """Each row with what `work` made of it, in the order of `rows`; the rejected ones go to the
        table `rejected`.

        Finished rows and answers are journaled: run again after a crash, nothing that was answered
        is asked again. Raises TooManyRejected, with the table of reasons, when more than
        `runtime.max_rejected_share` were rejected for reasons other than the `expected` ones.
        """
        from moaa.asking import ask_all

        rows = list(rows)
        self.ledger.rows["in"] += len(rows)
        serving = (
            dict(models)
            if isinstance(models, Mapping)
            else {name: self.models[name] for name in sorted(models)}
        )
        usage = Usage(self.store, f"{self.out.uri}/journal", self.attempt, self.ledger)
        usage.read()
        journal = Journal(self.store, f"{self.out.uri}/journal", flushed=usage.keep)
        journal.open()
        with timed(self.ledger, "asking"):
            try:
                ask_all(
                    rows,
                    work,
                    key=lambda row: row["id"],
                    models=serving,
                    runtime=self.runtime,
                    store=self.store,
                    journal=journal,
                    ledger=self.ledger,
                    progress=self.progress,
                )
            finally:
                journal.close()
                if journal.left_behind:
                    self.ledger.events["journal segments that could not be deleted"] += (
                        journal.left_behind
                    )
        self._refuse_if_too_many(rows, journal, expected)
        for row in rows:
            record = journal.finished[row["id"]]
            if "rejected" in record:
                rejected = record["rejected"]
                self.ledger.rejected[rejected["reason"]] += 1
                self.out.write({**row, **rejected}, table="rejected")
            else:
                self.ledger.rows["kept"] += 1
                yield row, record["row"]

    def _refuse_if_too_many(
        self, rows: list[Row], journal: Journal, expected: Collection[str]
    ) -> None:
        reasons: dict[str, list[str]] = {}
        failed: list[str] = []
        for row in rows:
            rejected = journal.finished[row["id"]].get("rejected")
            if rejected and rejected["reason"] not in expected:
                failed.append(row["id"])
                reasons.setdefault(rejected["reason"], []).append(rejected.get("detail") or "")
        count = len(failed)
        share = self.runtime.max_rejected_share
        if count > share * len(rows):
            journal.forget(failed)  # so that they are tried again once the cause is mended
            self.ledger.rejected.update(
                {reason: len(details) for reason, details in reasons.items()}
            )
            table = "\n".join(
                f"  {len(details):>6}  {reason}   e.g. {details[0][:200]}"
                for reason, details in reasons.items()
            )
            raise TooManyRejected(
                f"{count} of {len(rows)} rows were rejected ({count / len(rows):.1%}); the limit "
                f"is {share:.1%} "
                f"(runtime.max_rejected_share).\n{table}\n"
                "  Mend the cause and run again: rows that were answered are not asked again."
            )


@dataclass(frozen=True)
class Stage(Generic[P]):
    """A stage by name; call `main` to run it. `kind` is what its manifest says it makes."""

    name: str
    kind: str
    schema: int
    unit: str
    part_of: Callable[[Recipe], P]
    compute: Callable[[P, Work], None]

    def fingerprint(self, part: P, inputs: Mapping[str, Artifact]) -> str:
        """Identity of the result: sha256 of the stage, its schema version, its part of the recipe
        and its inputs."""
        text = json.dumps(
            [
                self.name,
                self.schema,
                part.model_dump(mode="json"),
                sorted((k, a.fingerprint) for k, a in inputs.items()),
            ],
            sort_keys=True,
            ensure_ascii=False,
        )
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def main(
        self,
        recipe: str,
        run_id: str,
        inputs: Mapping[str, str] | None = None,
        output: str = "",
        summary: str = "",
        metric: Callable[[str, float], None] = lambda name, value: None,
    ) -> None:
        """Run as a component: read the manifests at `inputs`, leave this stage's at `output`, a
        Markdown at `summary`.

        `metric` takes the result's figures (`moaa.report.figures`), new or reused. Ends the process
        with status 1 and one readable message when the stage fails; the same stands in the run
        record.
        """
        with recorded(self.name, recipe, run_id, summary) as (loaded, store, record):
            artifacts = {name: _input(store, name, path) for name, path in (inputs or {}).items()}
            manifest, reused, ledger = self.run(loaded, store, artifacts)
            record.update(
                status="reused" if reused else "done",
                manifest=manifest.model_dump(mode="json"),
                ledger=ledger,
            )
            if output:
                Path(output).write_text(manifest.to_text())
            from moaa.report.figures import figures

            for figure, value in figures(manifest.facts).items():
                metric(figure, value)

    def run(
        self, recipe: Recipe, store: Store, inputs: dict[str, Artifact]
    ) -> tuple[Any, bool, dict[str, Any]]:
        """The manifest, whether it was there already, and the ledger."""
        part = self.part_of(recipe)
        fingerprint = self.fingerprint(part, inputs)
        uri = f"{store.root}/{self.name}/{fingerprint}"
        if store.exists(f"{uri}/manifest.json"):
            found = Artifact.open(store, uri)
            say(f"{self.name}: reused {uri}")
            return found.manifest, True, found.manifest.ledger
        ledger = Ledger()
        with Progress(self.name, self.unit) as progress, Output(store, uri) as out:
            work = Work(
                inputs,
                out,
                store,
                recipe.runtime,
                dict(recipe.models),
                dict(recipe.pools),
                recipe.store,
                ledger,
                progress,
            )
            try:
                self.compute(part, work)
            except BaseException as error:
                error.ledger = ledger.to_json()  # type: ignore[attr-defined]  # so that the record of a failure has the counts
                raise
            manifest = out.commit(
                kind=self.kind,
                stage=self.name,
                name=recipe.name,
                fingerprint=fingerprint,
                parents=tuple(_parent(name, artifact) for name, artifact in sorted(inputs.items())),
                part=part.model_dump(mode="json"),
                ledger=ledger.to_json(),
                facts=work.facts,
            )
        try:
            store.delete_prefix(f"{uri}/journal/")
        except StoreError as error:  # the result stands
            say(
                f"{self.name}: {uri}/journal is no longer needed, but could not be deleted: {error}"
            )
        return manifest, False, manifest.ledger


def stage(
    name: str, *, kind: str, part: Callable[[Recipe], P], unit: str = "rows", schema: int = 1
):
    """Make a stage of a function `(part, work)`. Raise `schema` whenever the same inputs give
    another result."""

    def wrap(compute: Callable[[P, Work], None]) -> Stage[P]:
        return Stage(name, kind, schema, unit, part, compute)

    return wrap


def _parent(name: str, artifact: Artifact) -> Parent:
    return Parent(
        name=name, kind=artifact.manifest.kind, uri=artifact.uri, fingerprint=artifact.fingerprint
    )


def _input(store: Store, name: str, path: str) -> Artifact:
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise ArtifactError(
            f"input '{name}': there is no manifest at {path}. A cached Kubeflow task whose object "
            "was deleted looks like this: "
            "run again with caching off."
        ) from None
    return Artifact.open(store, text)


def read_recipe(argument: str) -> Loaded:
    """Return the recipe that a task was given: a text, or its address `s3://…/<sha256>.yaml`.

    Errors name the address, or the file in `MOAA_RECIPE`, in which a local run keeps the text.
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


@contextmanager
def recorded(
    name: str, recipe: str, run_id: str, summary: str = ""
) -> Iterator[tuple[Recipe, Store, dict[str, Any]]]:
    """Keep `<root>/runs/<run id>/<stage>.json` true while a stage runs, and end the process
    readably when it fails."""
    end_with_runner()
    os.environ.update(
        {RUN_ENV: run_id, STAGE_ENV: name}
    )  # who holds the leases of engines and trainings
    started = time.time()
    record: dict[str, Any] = {
        "run_id": run_id,
        "stage": name,
        "status": "running",
        "started": _utc(started),
        "ended": None,
        "seconds": 0.0,
        "manifest": None,
        "error": None,
        "ledger": {},
    }
    store = None

    def end() -> StoreError | None:
        """Leave the record and the summary; gives what kept the record from the store."""
        record.update(ended=_utc(time.time()), seconds=round(time.time() - started, 3))
        unwritten = None
        try:
            if store is not None:
                store.put(uri, json.dumps(record, ensure_ascii=False).encode())
        except StoreError as error:
            unwritten = error
        if summary and record["status"] != "running":
            from moaa.report import stage_markdown

            try:
                Path(summary).write_text(stage_markdown(record))
            except OSError as error:
                say(f"{name}: its summary could not be written: {error}")
        return unwritten

    try:
        loaded = read_recipe(recipe).recipe
        store = Store.of(loaded.store)
        uri = f"{store.root}/runs/{run_id}/{name}.json"
        store.put(uri, json.dumps(record).encode())
        yield loaded, store, record
    except BaseException as error:
        record.update(status="failed", error=_error(error), ledger=getattr(error, "ledger", {}))
        unwritten = end()
        if unwritten and str(unwritten) != str(error):
            say(f"{name}: its record could not be written: {unwritten}")
        if isinstance(error, MoaaError):
            say(f"{name} failed: {error}")
        elif isinstance(error, Terminated | KeyboardInterrupt):
            say(f"{name} was stopped; run again and it goes on where it was")
        else:
            raise
        raise SystemExit(1) from None
    if unwritten := end():
        say(
            f"{name} was done, but its record could not be written: {unwritten}\n  Run again: "
            "what was made is kept."
        )
        raise SystemExit(1)


def _error(error: BaseException) -> dict[str, Any]:
    if isinstance(error, Terminated | KeyboardInterrupt):
        return {"type": "Terminated", "message": "the stage was stopped before it was done"}
    described: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
    if not isinstance(error, MoaaError):
        described["traceback"] = "".join(traceback.format_exception(error))
    return described


def records(store: Store, run_id: str) -> list[dict[str, Any]]:
    """The records of a run, in the order the stages started."""
    found = [
        json.loads(store.get(uri))
        for uri, _ in store.list(f"{store.root}/runs/{run_id}/")
        if uri.endswith(".json")
    ]
    return sorted(found, key=lambda record: record["started"])


@contextmanager
def timed(ledger: Ledger, step: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        ledger.seconds[step] = ledger.seconds.get(step, 0.0) + time.perf_counter() - start


def say(text: str) -> None:
    """A line for the log; on the runner's terminal too, where it named one."""
    print(text, file=sys.stderr, flush=True)
    if terminal := os.environ.get("MOAA_TTY"):
        with Path(terminal).open("w") as stream:
            print(text, file=stream, flush=True)


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
