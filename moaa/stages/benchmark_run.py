"""A run of each benchmark: what is asked for each question, all benchmarks at the same time."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from moaa.artifacts.table import Row
from moaa.asking import ask_all
from moaa.asking.rejections import Gaps
from moaa.benchmarks import Benchmark, Entrant, EntrantAnswer, Item, Played
from moaa.benchmarks.benchmark import Match, RunProgram
from moaa.benchmarks.faults import unexpected
from moaa.chat.controls import Controls
from moaa.chat.message import Ask
from moaa.context import Context
from moaa.errors import CallError, RowRejected
from moaa.progress.messages import log
from moaa.recipe.schema import Model, Sampling
from moaa.stages.batches import NO_ANSWER, NOT_ASKED, UNEXPECTED, Batch, Kept, judgement_gaps


@dataclass(slots=True)
class BenchmarkRun:
    """One benchmark with its questions, its entrants, and the batches of both."""

    benchmark: Benchmark[Any]
    items: Sequence[Item] = ()
    entrants: Mapping[str, Entrant] = field(default_factory=dict)
    answers: dict[str, Batch] = field(default_factory=dict)
    judgements: dict[tuple[str, ...], Batch] = field(default_factory=dict)
    failed: str = ""
    """Why there is no score at all."""
    pinned: str = ""
    """Whether its questions are the published ones, in words for the report."""

    @property
    def batches(self) -> list[Batch]:
        """The batches of answers and of judgements."""
        return [*self.answers.values(), *self.judgements.values()]

    def played(self) -> Played:
        """Everything that was answered and judged, without batches that failed."""
        return Played(
            self.items,
            tuple(name for name in self.entrants if not self._out(name)),
            {
                name: {id: _answers(row) for id, row in batch.rows().items()}
                for name, batch in self.answers.items()
                if not batch.failed
            },
            {who: batch.rows() for who, batch in self.judgements.items() if not batch.failed},
        )

    def _out(self, name: str) -> bool:
        return name in self.answers and bool(self.answers[name].failed)

    def fail(self, reason: str) -> None:
        """Note, and say, why it has no score at all."""
        self.failed = reason
        log.warning(f"{self.benchmark.title}: {reason}")

    def failures(self) -> dict[str, str]:
        """Return why an entrant or a match has no score, by its name."""
        return {batch.named: batch.failed for batch in self.batches if batch.failed}


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for all benchmarks of an evaluation."""

    sampling: Sampling
    controls: Controls
    identity: Mapping[str, Any]
    """The part of these rules that decides answers."""
    limit: float
    """`runtime.max_rejected_share`."""
    run_program: RunProgram | None = None
    """Runs programs that models wrote, if that is possible here."""


def set_up(run: BenchmarkRun, questions: str, judging: Mapping[str, Any], rules: Rules) -> None:
    """Give the run its batches.

    `questions`: their identity. `judging`: what decides judgements, besides the answers.
    """
    ids = tuple(item.id for item in run.items)
    name = run.benchmark.name
    texts = {"controls": rules.identity["controls"]}
    # If a benchmark's questions have their own sampling, it does not depend on evaluate.sampling.
    asked = rules.identity if any(item.sampling is None for item in run.items) else texts
    if run.benchmark.measures == "models":
        for who, entrant in run.entrants.items():
            identity = [questions, asked, entrant.identity]
            run.answers[who] = Batch(
                "answers", name, (who,), identity, ids, rules.limit, lambda row: Gaps()
            )
    for match in run.benchmark.matches(tuple(run.entrants)):
        who_is: list[object] = [
            run.answers[who].fingerprint if who in run.answers else run.entrants[who].identity
            for who in match
        ]
        made: list[object] = [
            questions,
            run.benchmark.schema,
            texts,
            {**judging, **run.benchmark.judged_with},
            who_is,
        ]
        judged = tuple(run.answers[who] for who in match if who in run.answers)
        run.judgements[match] = Batch(
            "judgements", name, match, made, ids, rules.limit, judgement_gaps, judged
        )


@dataclass(frozen=True, slots=True)
class Unit:
    """One question to one entrant, or one judgement."""

    run: BenchmarkRun
    item: Item
    batch: Batch

    async def ask(self, rules: Rules, ask: Ask) -> Row:
        """Return the row. Add it, or its loss, to the batch."""
        batch = self.batch
        try:
            if batch.failed:
                raise RowRejected(NOT_ASKED, batch.failed.splitlines()[0])
            work = self._answer if batch.kind == "answers" else self._judge
            row = await work(rules, ask)
        except (RowRejected, CallError) as error:
            batch.lose(self.item.id, error.reason, error.detail)
            raise
        except Exception as error:
            where = f"{batch.benchmark}, {batch.kind} of {batch.named}, {self.item.id}"
            detail = unexpected(error, where, said=bool(batch.failed))
            batch.fail(detail)
            batch.lose(self.item.id, UNEXPECTED, detail)
            raise RowRejected(UNEXPECTED, detail) from error
        batch.keep(self.item.id, row)
        return row

    async def _answer(self, rules: Rules, ask: Ask) -> Row:
        entrant = self.run.entrants[self.batch.who[0]]
        answers = await entrant.answer(self.item, rules.sampling, ask, rules.controls)
        return {"answers": [each.to_json() for each in answers]}

    async def _judge(self, rules: Rules, ask: Ask) -> Row:
        given = []
        for who in self.batch.who:
            if batch := self.run.answers.get(who):
                record = await batch.record(self.item.id)
                if "rejected" in record:
                    rejected = record["rejected"]
                    raise RowRejected(f"{NO_ANSWER} {who}", f"{rejected['reason']}")
                given.append(_answers(record["row"]))
        entrants = tuple(self.run.entrants[who] for who in self.batch.who)
        match = Match(self.item, entrants, tuple(given), rules.controls, rules.run_program)
        return await self.run.benchmark.judge_match(match, ask)


def units(runs: Collection[BenchmarkRun]) -> Iterator[tuple[str, Unit]]:
    """Yield what must be asked, by its name in the journal. The answers to a question come before
    its judgements, which wait for them."""
    for run in runs:
        for item in run.items:
            for batch in run.batches:
                if not batch.reused:
                    yield batch.unit(item.id), Unit(run, item, batch)


def run_all(
    runs: Sequence[BenchmarkRun], rules: Rules, models: Mapping[str, Model], context: Context
) -> None:
    """Fill the batches of all runs: from earlier evaluations, from the journal, by asking."""
    kept = Kept(context.store)
    for batch in (batch for run in runs for batch in run.batches):
        if kept.find(batch):
            context.ledger.events[f"reused: {batch.kind} of earlier evaluations"] += len(
                batch.items
            )
    todo = dict(units(runs))
    context.ledger.rows["in"] += sum(len(b.items) for run in runs for b in run.batches)

    async def one(unit: Unit, ask: Ask) -> Row:
        return await unit.ask(rules, ask)

    needed = asked(runs)
    try:
        if todo:
            served = {name: model for name, model in models.items() if name in needed}
            with context.asking(served, own=_measured(runs)) as (session, journal):
                for batch in (batch for run in runs for batch in run.batches):
                    if not batch.reused:
                        journal.forget(batch.take_up(journal.finished))
                ask_all(todo, one, session, journal)
        for run in runs:
            for batch in run.batches:
                batch.end()
    finally:
        for run in runs:
            for batch in run.batches:
                kept.keep(batch, context.recipe.name)


def asked(runs: Sequence[BenchmarkRun]) -> set[str]:
    """Return the models that are needed for the missing records."""
    found: set[str] = set()
    for run in runs:
        for who, batch in run.answers.items():
            if not batch.reused:
                found |= run.entrants[who].asks
        for match, batch in run.judgements.items():
            if not batch.reused and run.benchmark.measures == "models":
                found |= run.benchmark.judges
            elif not batch.reused:
                found |= run.entrants[match[0]].asks
    return found


def _measured(runs: Sequence[BenchmarkRun]) -> set[str]:
    """Return the models that are contestants themselves."""
    measuring = [run for run in runs if run.benchmark.measures == "models"]
    return {each.model for run in measuring for each in run.entrants.values() if each.model}


def _answers(row: Row) -> tuple[EntrantAnswer, ...]:
    return tuple(EntrantAnswer.from_json(each) for each in row["answers"])
