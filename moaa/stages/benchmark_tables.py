"""What a played benchmark leaves: rows of answers, judgements and scores, and its facts."""

from __future__ import annotations

from typing import Any, Final

from moaa.benchmarks import data, judgements
from moaa.benchmarks.faults import unexpected
from moaa.judge import Tally
from moaa.stage import Context
from moaa.stages.answers_and_judges import lengths_of
from moaa.stages.benchmark_run import BenchmarkRun

NOTHING: Final = "nothing could be judged"


def written(run: BenchmarkRun, tally: Tally, context: Context) -> dict[str, Any]:
    """Write the tables of one benchmark; return its facts."""
    benchmark = run.benchmark
    judged = benchmark.measures == "models" and benchmark.judges
    scores: list[dict[str, Any]] = []
    if not run.failed:
        _write_batches(run, context)
        scores = _scored(run)
    for score in scores:
        context.out.write(score, table="scores")
    lost = sum(len(batch.lost) for batch in run.batches)
    return {
        "title": benchmark.title,
        "protocol": benchmark.protocol,
        "measures": benchmark.measures,
        "judge": judgements.name_of(benchmark.judge) if judged else "",
        "judge_members": judgements.members_of(benchmark.judge) if judged else "",
        "sources": [
            f"{source.source}{f'@{source.revision}' if source.revision else ''}"
            for source in benchmark.sources
        ]
        or ["prompts.evaluation"],
        "items": len(run.items),
        "digest": data.digest(run.items),
        "pinned": run.pinned,
        "incomparable": benchmark.incomparable(run.items) if run.items else "",
        "failed": run.failed or ("" if scores or not run.judgements else NOTHING),
        "failures": run.failures(),
        "lost": lost,
        "scores": scores,
        "lengths": lengths_of(run),
        "judging": tally.facts() if tally.verdicts else {},
    }


def _scored(run: BenchmarkRun) -> list[dict[str, Any]]:
    """Return the rows of the table `scores`. If they cannot be computed, the benchmark has failed:
    its answers and judgements are kept, and the other benchmarks have their scores."""
    name = run.benchmark.name
    try:
        return [
            {"id": f"{name}/{number}", "benchmark": name, **score.to_json()}
            for number, score in enumerate(run.benchmark.scores(run.played()))
        ]
    except Exception as error:
        reason = unexpected(error, f"{run.benchmark.title}, its scores")
        run.fail(f"its scores cannot be computed: {reason}")
        return []


def _write_batches(run: BenchmarkRun, context: Context) -> None:
    """Write answers, judgements and losses: everything about one question, then the next."""
    name = run.benchmark.name
    for item in run.items:
        about = {"id": item.id, "benchmark": name, "group": item.group}
        for batch in run.batches:
            record = batch.records[item.id]
            if "rejected" in record:
                lost = record["rejected"]
                context.ledger.rejected[lost["reason"]] += 1
                whose = {"what": batch.kind, "who": batch.named}
                context.out.write({**about, **whose, **lost}, table="rejected")
                continue
            context.ledger.rows["kept"] += 1
            if batch.kind == "judgements":
                compared = run.benchmark.table == "judgements"
                names = ("model_a", "model_b") if compared else ("entrant",)
                # A baseline is not a contestant: the judgement names it.
                models = dict(zip(names, batch.who, strict=False))
                row = {**about, **models, **record["row"]}
                context.out.write(row, table=run.benchmark.table)
                continue
            for turn, answer in enumerate(record["row"]["answers"], 1):
                row = {**about, "model": batch.who[0], "turn": turn, **answer}
                context.out.write(row, table="answers")
