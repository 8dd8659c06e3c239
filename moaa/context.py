"""The place where a stage works: inputs, output, journal, and how it asks models."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from moaa.artifacts import Artifact, Output
from moaa.artifacts.table import Row
from moaa.asking.rejections import Gaps, GapsOf, Rejections
from moaa.chat.message import Ask
from moaa.errors import CallError, RowRejected, TooManyRejected
from moaa.journal import S3Journal
from moaa.journal.usage import Usage
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Model, Recipe
from moaa.store import Store

if TYPE_CHECKING:
    from moaa.asking import Session


@dataclass(slots=True)
class Context:
    """What a stage works with: its inputs, its output, the ledger, and the whole recipe (for fields
    that never change a result)."""

    inputs: Mapping[str, Artifact]
    out: Output
    store: Store
    recipe: Recipe
    ledger: Ledger
    progress: Progress
    content: Mapping[str, str] = field(default_factory=dict)
    """The content of the sources outside of the run when the stage began."""
    facts: dict[str, Any] = field(default_factory=dict)
    """The stage's own numbers, for its manifest and the report."""
    again: bool = False
    """Whether something failed that another run may do:
    the result is then shown, but not reused."""

    def ask_each(
        self,
        rows: Iterable[Row],
        method: Callable[[Row, Ask], Awaitable[Row]],
        *,
        models: Collection[str] | Mapping[str, Model],
        expected: Collection[str] = (),
        gaps_of: GapsOf = lambda made: Gaps(),
    ) -> Iterator[tuple[Row, Row]]:
        """Yield each row with what `method` made of it, in order. Rejected rows go to table
        `rejected`.

        Finished rows and answers are journaled: after a crash, no answered call is asked again.
        Raises TooManyRejected, with the table of reasons, as soon as it is certain that more than
        `runtime.max_rejected_share` of the rows are lost for other reasons than `expected`.
        `gaps_of` returns what is missing in a row that is kept: these losses count too.
        """
        from moaa.asking import ask_all

        rows = list(rows)
        self.ledger.rows["in"] += len(rows)
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

        items = {row["id"]: row for row in rows}
        with self.asking(models) as (session, journal):
            journal.forget(rejections.take_up(journal.finished, gaps_of))
            try:
                first = {id: items[id] for id in rejections.first}
                ask_all({**first, **items}, counted, session, journal)
                rejections.end()
            except TooManyRejected:
                journal.forget(rejections.to_ask_again)  # once the cause is fixed
                self.ledger.rejected.update(rejections.reasons)
                raise
        for row in rows:
            record = journal.finished[row["id"]]
            if "rejected" in record:
                rejected = record["rejected"]
                self.ledger.rejected[rejected["reason"]] += 1
                self.out.write({**row, **rejected}, table="rejected")
            else:
                self.ledger.rows["kept"] += 1
                yield row, record["row"]

    @contextmanager
    def asking(
        self, models: Collection[str] | Mapping[str, Model], own: Collection[str] = ()
    ) -> Iterator[tuple[Session, S3Journal]]:
        """Yield what `asking.ask_all` needs: the session of these models, and the stage's open
        journal.

        Leaving the context flushes the journal. `own`: models that this pod serves itself if no
        Deployment of the cluster does.
        """
        from moaa import engines
        from moaa.asking import Session

        given = self.recipe.models
        asked = (
            dict(models)
            if isinstance(models, Mapping)
            else {name: given[name] for name in sorted(models)}
        )
        usage = Usage(self.store, f"{self.out.uri}/journal", secrets.token_hex(4), self.ledger)
        usage.read()
        journal = S3Journal(self.store, f"{self.out.uri}/journal", flushed=usage.keep)
        journal.open()
        session = Session(
            asked, self.recipe.runtime, self.store, self.ledger, self.progress, engines.start, own
        )
        with self.ledger.timed("asking"):
            try:
                yield session, journal
            finally:
                journal.close()
                if journal.left_behind:
                    self.ledger.events["journal segments that could not be deleted"] += (
                        journal.left_behind
                    )
        uses = self.ledger.in_all().items()
        if rates := {m: use.prefix_hit_rate for m, use in uses if use.prefix_queries}:
            self.facts["prefix_cache"] = rates
