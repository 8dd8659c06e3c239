"""The frame of every stage: fingerprint -> reuse, or compute -> ledger -> manifest.

A stage is a function `(part, context) -> None` under `@stage(...)`. `part` is what it needs of the
recipe: its fingerprint is made of that, of its schema version and of the fingerprints of its
inputs. `context` is where it works: inputs, output, journal, ledger, progress, and the runtime
settings, which never change a result.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, Generic, TypeVar

from moaa.artifacts import Artifact, Draft, Manifest, Output, Parent
from moaa.artifacts.owner import Owner
from moaa.asking.rejections import Gaps, GapsOf, Rejections
from moaa.attempt import recorded
from moaa.chat.message import Ask
from moaa.declaration import Declaration
from moaa.errors import ArtifactError, CallError, RowRejected, StoreError, TooManyRejected
from moaa.journal import S3Journal
from moaa.journal.usage import Usage
from moaa.kubernetes.names import RUN_ENV
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.progress.messages import log, say
from moaa.recipe.schema import Model, Part, Recipe
from moaa.store import Store
from moaa.task import Task
from moaa.weights.content import of_asked, pinned

P = TypeVar("P", bound=Part)
Row = dict[str, Any]
Metric = Callable[[str, float], None]
"""Takes the name and the value of one figure."""


@dataclass(slots=True)
class Context:
    """What a stage works with: its inputs, its output, the ledger, and the whole recipe (for
    fields that never change a result)."""

    inputs: Mapping[str, Artifact]
    out: Output
    store: Store
    recipe: Recipe
    ledger: Ledger
    progress: Progress
    content: Mapping[str, str] = field(default_factory=dict)
    """What the sources outside of the run held when the stage began."""
    facts: dict[str, Any] = field(default_factory=dict)
    """Numbers of the stage's own, for its manifest and the report."""

    def ask_each(
        self,
        rows: Iterable[Row],
        method: Callable[[Row, Ask], Awaitable[Row]],
        *,
        models: Collection[str] | Mapping[str, Model],
        expected: Collection[str] = (),
        gaps_of: GapsOf = lambda made: Gaps(),
    ) -> Iterator[tuple[Row, Row]]:
        """Each row with what `method` made of it, in order. Rejected rows go to table `rejected`.

        Finished rows and answers are journaled: after a crash, nothing that was answered is asked
        again. Raises TooManyRejected, with the table of reasons, as soon as it is certain that more
        than `runtime.max_rejected_share` of the rows are lost for other reasons than `expected`.
        `gaps_of` says what is missing in a row that is kept: its losses count too.
        """
        from moaa import engines
        from moaa.asking import Session, ask_all

        rows = list(rows)
        self.ledger.rows["in"] += len(rows)
        given = self.recipe.models
        asked = (
            dict(models)
            if isinstance(models, Mapping)
            else {name: given[name] for name in sorted(models)}
        )
        limit = self.recipe.runtime.max_rejected_share
        rejections = Rejections([row["id"] for row in rows], limit, expected)

        async def counted(row: Row, ask: Ask) -> Row:
            await rejections.turn(row["id"])
            try:
                made = await method(row, ask)
            except (RowRejected, CallError) as error:
                rejections.rejected(row["id"], error.reason, error.detail)
                raise
            rejections.kept(row["id"], gaps_of(made))
            return made

        usage = Usage(self.store, f"{self.out.uri}/journal", secrets.token_hex(4), self.ledger)
        usage.read()
        journal = S3Journal(self.store, f"{self.out.uri}/journal", flushed=usage.keep)
        journal.open()
        session = Session(
            asked, self.recipe.runtime, self.store, self.ledger, self.progress, engines.start
        )
        items = {row["id"]: row for row in rows}
        with self.ledger.timed("asking"):
            try:
                journal.forget(rejections.take_up(journal.finished, gaps_of))
                first = {id: items[id] for id in rejections.first}
                ask_all({**first, **items}, counted, session, journal)
                rejections.end()
            except TooManyRejected:
                journal.forget(rejections.to_ask_again)  # once the cause is fixed
                self.ledger.rejected.update(rejections.reasons)
                raise
            finally:
                journal.close()
                if journal.left_behind:
                    self.ledger.events["journal segments that could not be deleted"] += (
                        journal.left_behind
                    )
        for row in rows:
            record = journal.finished[row["id"]]
            if "rejected" in record:
                rejected = record["rejected"]
                self.ledger.rejected[rejected["reason"]] += 1
                self.out.write({**row, **rejected}, table="rejected")
            else:
                self.ledger.rows["kept"] += 1
                yield row, record["row"]


@dataclass(frozen=True)
class Stage(Generic[P]):
    """A stage that can run; call `main`."""

    declaration: Declaration
    schema: int
    part_of: Callable[[Recipe], P]
    compute: Callable[[P, Context], None]
    content_of: Callable[[Recipe, Store], Mapping[str, str]] | None = None

    @property
    def name(self) -> str:
        return self.declaration.name

    def content(self, recipe: Recipe, store: Store) -> dict[str, str]:
        """What the sources that the stage reads from outside of the run hold now. By default: the
        models that it asks."""
        if self.content_of:
            return dict(self.content_of(recipe, store))
        return of_asked(recipe, self.declaration.models(recipe), store)

    def fingerprint(
        self,
        part: P,
        inputs: Mapping[str, Artifact],
        content: Mapping[str, str] = MappingProxyType({}),
    ) -> str:
        """Identity of the result: sha256 of the stage, its schema version, its part of the recipe,
        its inputs, and what its sources hold."""
        identity: list[object] = [
            self.name,
            self.schema,
            part.model_dump(mode="json"),
            sorted((name, artifact.fingerprint) for name, artifact in inputs.items()),
        ]
        if content:
            identity.append(dict(content))
        text = json.dumps(identity, sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    def main(
        self,
        task: Task,
        inputs: Mapping[str, str] | None = None,
        output: str = "",
        summary: str = "",
        metric: Metric = lambda name, value: None,
    ) -> None:
        """Run as a component: read the manifests at `inputs`, write this stage's to `output` and a
        Markdown page to `summary`.

        `metric` takes the figures of the result (`moaa.report.figures`), new or reused. If the
        stage fails, the process exits with status 1 and one readable message, which the run record
        has too.
        """
        from moaa.report.figures import figures

        with recorded(self.declaration, task, summary) as attempt:
            artifacts = {
                name: _input(attempt.store, name, path) for name, path in (inputs or {}).items()
            }
            manifest, reused = self.run(attempt.recipe, attempt.store, artifacts, attempt.ledger)
            attempt.done(manifest, reused=reused)
            if output:
                Path(output).write_text(manifest.to_text())
            for figure, value in figures(manifest.facts).items():
                metric(figure, value)

    def run(
        self,
        recipe: Recipe,
        store: Store,
        inputs: Mapping[str, Artifact],
        ledger: Ledger | None = None,
    ) -> tuple[Manifest, bool]:
        """The manifest of the result, and whether it was there already. `ledger` counts."""
        ledger = Ledger() if ledger is None else ledger
        part, content = self.part_of(recipe), self.content(recipe, store)
        fingerprint = self.fingerprint(part, inputs, content)
        uri = f"{store.root}/{self.name}/{fingerprint}"
        log.debug(f"{self.name}: looking for {uri}; inputs {[a.uri for a in inputs.values()]}")
        unit, kind = self.declaration.unit, self.declaration.kind
        with Owner(store, uri, f"run {os.environ.get(RUN_ENV, 'without a name')}") as owner:
            if not owner.acquire(f"{uri}/manifest.json"):
                say(f"{self.name}: reused {uri}{_compared(content)}")
                return Artifact.open(store, uri, fingerprint).manifest, True
            with Progress(self.name, unit) as progress, Output(store, uri, kind) as out:
                known = pinned(recipe, content)
                context = Context(inputs, out, store, known, ledger, progress, content)
                self.compute(part, context)
                held = {"content": content} if content else {}
                manifest = out.commit(
                    Draft(
                        stage=self.name,
                        name=recipe.name,
                        fingerprint=fingerprint,
                        parents=[Parent.of(name, inputs[name].manifest) for name in sorted(inputs)],
                        part=part.model_dump(mode="json") | held,
                        ledger=ledger.to_json(),
                        facts=context.facts,
                    )
                )
            try:
                store.delete_prefix(f"{uri}/journal/")
            except StoreError as error:  # the result stands
                log.warning(
                    f"{self.name}: {uri}/journal is no longer needed, but was not deleted: {error}"
                )
        return manifest, False


def stage(
    declaration: Declaration,
    *,
    part: Callable[[Recipe], P],
    content: Callable[[Recipe, Store], Mapping[str, str]] | None = None,
    schema: int = 1,
) -> Callable[[Callable[[P, Context], None]], Stage[P]]:
    """Make a stage of a function `(part, context)`.

    `content` says what sources outside of the run hold; by default the models that the stage asks.
    Raise `schema` whenever the same inputs give another result.
    """

    def wrap(compute: Callable[[P, Context], None]) -> Stage[P]:
        return Stage(declaration, schema, part, compute, content)

    return wrap


def _compared(content: Mapping[str, str]) -> str:
    """What was asked before a result is used again, for the log."""
    if not content:
        return " (same recipe and inputs)"
    shown = [f"{name} ({held[:12]})" for name, held in list(content.items())[:5]]
    more = f" and {len(content) - 5} more" if len(content) > 5 else ""
    return f" (same recipe and inputs; unchanged: {', '.join(shown)}{more})"


def _input(store: Store, name: str, path: str) -> Artifact:
    try:
        text = Path(path).read_text()
    except FileNotFoundError:
        raise ArtifactError(
            f"input '{name}': there is no manifest at {path}. A cached Kubeflow task whose object "
            "was deleted looks like this: run again with caching off."
        ) from None
    return Artifact.open(store, text)
