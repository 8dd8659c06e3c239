"""What a finished benchmark shows about its answers and about its judge."""

from __future__ import annotations

from typing import Any

from moaa import judge, statistics
from moaa.stages.benchmark_run import BenchmarkRun


def lengths_of(run: BenchmarkRun) -> dict[str, dict[str, Any]]:
    """Return the lengths of the answers of each contestant (`statistics.lengths`), and those of a
    baseline whose answers came with the questions: only its characters are known."""
    found = statistics.lengths(
        {"model": who, "id": id, **answer}
        for who, batch in run.answers.items()
        for id, row in batch.rows().items()
        for answer in row["answers"]
    )
    given = run.benchmark.given_answers(run.items)
    return found | {who: statistics.characters(texts) for who, texts in given.items() if texts}


def tally_of(run: BenchmarkRun) -> judge.Tally:
    """Return what the judgements of pairs, in both orders, say about the judge: all of one question
    together, then the next."""
    tally = judge.Tally()
    judged = [batch.rows() for batch in run.judgements.values()]
    for item in run.items:
        rows = [rows[item.id] for rows in judged if item.id in rows]
        tally.add(*(judge.Judgement.from_json(row) for row in rows if "orders" in row))
    return tally
