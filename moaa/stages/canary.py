"""The canary set of an evaluation: the candidate's answers, by which it can be recognised later."""

from __future__ import annotations

from moaa.benchmarks import Entrant, data
from moaa.benchmarks.canary import Canary
from moaa.context import Context
from moaa.progress.messages import log
from moaa.recipe.schema import Part
from moaa.stages.benchmark_run import BenchmarkRun, Rules, set_up


def run_of(candidate: Entrant, rules: Rules, context: Context) -> BenchmarkRun:
    """Return the canary set as a benchmark with only the candidate."""
    benchmark = Canary(Part(), context.recipe)
    items = benchmark.items(context.inputs["prompts"].rows("evaluation"))
    made = BenchmarkRun(benchmark, items, {candidate.name: candidate})
    set_up(made, data.identity(items), {}, rules)
    return made


def write(played: BenchmarkRun, context: Context) -> None:
    """Write the answers with log-probabilities to the table `canary`; the others are counted.

    If there are none, the version has no canary set, and its server cannot be checked.
    """
    (batch,) = played.answers.values()
    usable = 0
    for item in played.items:
        record = batch.records[item.id]
        if "rejected" in record:
            context.ledger.rejected[record["rejected"]["reason"]] += 1
            continue
        (answer,) = record["row"]["answers"]
        if not answer.get("positions"):
            context.ledger.rejected["no log-probabilities"] += 1
            continue
        usable += 1
        context.ledger.rows["kept"] += 1
        kept = {key: answer[key] for key in ("messages", "text", "positions")}
        context.out.write({"id": item.id, **kept}, table="canary")
    if not usable:
        why = batch.failed or "its server gives no log-probabilities"
        log.warning(f"there is no canary set of {batch.named}: {why}")
