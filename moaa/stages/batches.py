"""What evaluate asks, in batches: one entrant's answers to all questions of one benchmark, or the
judgements of one match.

A finished batch is an artifact of its own, under a fingerprint of everything that decides it:

    <root>/evaluation/answers/<fingerprint>        questions, sampling, who answers (weights)
    <root>/evaluation/judgements/<fingerprint>     these very answers, who judges and how

So with another benchmark or model only the new calls are made. Answers are never used for another
model, even one of the same name.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from moaa.artifacts import Artifact, Draft, Output
from moaa.asking.rejections import Gaps, GapsOf, Rejections
from moaa.errors import ArtifactError, StoreError, TooManyRejected
from moaa.progress.messages import log
from moaa.store import Missing, Store

BatchKind = Literal["answers", "judgements"]
Record = dict[str, Any]
"""{"row": …} or {"rejected": {"reason", "detail"}}, in the form of the journal."""


NOT_ASKED: Final = "not asked"
"""Why a question of a batch that has failed is lost."""
UNEXPECTED: Final = "unexpected error"
"""Why the question is lost at which a fault of ours failed the batch."""

NO_ANSWER: Final = "no answer of"
"""How the reason begins of a judgement that is lost with the answer. It says nothing once there is
an answer, and asking again costs nothing if there is still none."""


def fingerprint(identity: object) -> str:
    """Return the first 24 hex digits of the sha256 of what decides a batch."""
    text = json.dumps(identity, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(slots=True)
class Batch:
    """The records of one entrant or match, by question."""

    kind: BatchKind
    benchmark: str
    who: tuple[str, ...]
    identity: object
    items: tuple[str, ...]
    limit: float
    """Share of the questions that may be lost: `runtime.max_rejected_share`."""
    gaps_of: GapsOf
    judged: tuple[Batch, ...] = ()
    """The answers that are judged here."""
    records: dict[str, Record] = field(default_factory=dict)
    reused: bool = False
    failed: str = ""
    """Why the whole batch cannot be used."""
    _events: dict[str, asyncio.Event] = field(default_factory=dict)
    _rejections: Rejections = field(init=False)

    def __post_init__(self) -> None:
        self._rejections = Rejections(self.items, self.limit)

    @property
    def fingerprint(self) -> str:
        """Return the name of the batch's artifact.

        Judgements are of certain texts: a model that is asked again may answer otherwise. So they
        have a name once all answers are there.
        """
        texts = [[each.records[item] for item in each.items] for each in self.judged]
        content = [fingerprint(text) for text in texts]
        return fingerprint([self.kind, self.benchmark, self.identity, *content])

    @property
    def named(self) -> str:
        """Return whom it is about, for people: `dpo`, or `dpo against base`."""
        return " against ".join(self.who)

    def unit(self, item: str) -> str:
        """Return the name of one of its questions in the stage's journal."""
        return "/".join((self.kind, self.benchmark, "~".join(self.who), item))

    async def record(self, item: str) -> Record:
        """Return the record of a question; wait until it exists."""
        if item not in self.records:
            await self._events.setdefault(item, asyncio.Event()).wait()
        return self.records[item]

    @property
    def missing(self) -> set[str]:
        """Return the questions without a record."""
        return set(self.items) - set(self.records)

    def keep(self, item: str, row: Mapping[str, Any]) -> None:
        """Add an answer or a judgement."""
        self._settle(item, {"row": dict(row)})
        self._count(lambda: self._rejections.kept(item, self.gaps_of(dict(row))))

    def lose(self, item: str, reason: str, detail: str) -> None:
        """Record that a question has no answer, or no judgement."""
        self._settle(item, {"rejected": {"reason": reason, "detail": detail}})
        if not self.failed:
            self._count(lambda: self._rejections.rejected(item, reason, detail))

    def fail(self, reason: str) -> None:
        """Note that the whole batch is of no use: what is not asked yet is not asked."""
        self.failed = self.failed or reason

    def take_up(self, finished: Mapping[str, Record]) -> set[str]:
        """Add the records of an earlier attempt, by the names of `unit`.

        Return the questions to ask again: those that were not asked, had no answer to judge, or
        ended with an unexpected error; and all that lost something, if that is too much.
        """
        found = {
            item: finished[self.unit(item)] for item in self.items if self.unit(item) in finished
        }
        ours = (NOT_ASKED, UNEXPECTED, NO_ANSWER)
        redo = {item for item, each in found.items() if _reason(each).startswith(ours)}
        found = {item: each for item, each in found.items() if item not in redo}
        again = redo | self._rejections.take_up(found, self.gaps_of)
        self.records.update((item, each) for item, each in found.items() if item not in again)
        return {self.unit(item) for item in again}

    def end(self) -> None:
        """Record that nothing more comes: a batch without any row has failed."""
        self._count(self._rejections.end)

    def rows(self) -> dict[str, Any]:
        """Return the rows that were kept, by question."""
        return {item: each["row"] for item, each in self.records.items() if "row" in each}

    @property
    def lost(self) -> dict[str, Any]:
        """Return what was lost, by question: {"reason", "detail"}."""
        return {id: each["rejected"] for id, each in self.records.items() if "rejected" in each}

    def _settle(self, item: str, record: Record) -> None:
        self.records[item] = record
        if event := self._events.pop(item, None):
            event.set()

    def _count(self, step: Callable[[], object]) -> None:
        try:
            step()
        except TooManyRejected as error:
            self.fail(str(error))


def _reason(record: Record) -> str:
    return str(record["rejected"]["reason"]) if "rejected" in record else ""


def judgement_gaps(row: Mapping[str, Any]) -> Gaps:
    """Return what is missing in a judgement: each lost half,
    and the judges that assessed nothing."""
    from moaa.asking.rejections import Loss, absent

    orders = row.get("orders", ())
    return Gaps(
        tuple(Loss(each["reason"], each.get("detail", ""), 0.5) for each in row.get("lost", ())),
        absent(
            (assessment["name"] for order in orders for assessment in order["assessments"]),
            (gone for order in orders for gone in order["left_out"]),
        ),
    )


class Kept:
    """The batches that evaluations below this store have finished."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def _uri(self, kind: str, fingerprint: str) -> str:
        return f"{self._store.root}/evaluation/{kind}/{fingerprint}"

    def find(self, batch: Batch) -> bool:
        """Fill the batch from its artifact; return whether there is a readable one."""
        if not all(each.reused for each in batch.judged):
            return False  # other answers, or none yet
        name = batch.fingerprint
        try:
            artifact = Artifact.open(self._store, self._uri(batch.kind, name), name)
            found = {row["id"]: row["record"] for row in artifact.rows()}
        except Missing:
            return False
        except ArtifactError as error:  # damaged: it is asked again
            log.warning(f"{batch.benchmark}, {batch.kind} of {batch.named}: {error}")
            return False
        if set(found) != set(batch.items):
            return False
        for item, record in found.items():
            if "row" in record:
                batch.keep(item, record["row"])
            else:
                batch.lose(item, **record["rejected"])
        batch.reused = True
        return True

    def keep(self, batch: Batch, name: str) -> None:
        """Commit a batch that is complete and usable. `name`: the recipe's."""
        needed = (batch, *batch.judged)
        if batch.reused or batch.failed or any(each.missing for each in needed):
            return
        made = batch.fingerprint
        uri = self._uri(batch.kind, made)
        try:
            with Output(self._store, uri, batch.kind) as out:
                for item in batch.items:
                    out.write({"id": item, "record": batch.records[item]})
                out.commit(
                    Draft(
                        stage="evaluate",
                        name=name,
                        fingerprint=made,
                        part={"benchmark": batch.benchmark, "identity": batch.identity},
                        facts={"who": list(batch.who), "lost": len(batch.lost)},
                    )
                )
        except (StoreError, ArtifactError) as error:
            # The next evaluation asks again; this one is complete.
            log.warning(f"{uri} was not saved for later evaluations: {error}")
