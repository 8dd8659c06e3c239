"""Checks whether the benchmarks of the evaluation will have scores. Evaluation is the last stage of
a run and continues without a failing benchmark, so these findings stop no run, but they are shown
at its start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from moaa.benchmarks import Benchmark, harness
from moaa.benchmarks.table import chosen
from moaa.errors import MoaaError
from moaa.packages import install_command
from moaa.preflight.finding import Finding, unseen
from moaa.preflight.run import PlannedRun
from moaa.prompts import sources
from moaa.sandbox.run import why_not

CHECK: Final = "benchmark"


def findings(run: PlannedRun, *, hub_away: bool) -> Iterator[Finding]:
    """Check every benchmark that has its own questions.

    `hub_away`: the hub did not answer another check, and is not asked again.
    """
    if not any(stage.name == "evaluate" for stage in run.stages):
        return
    for benchmark in chosen(run.recipe):
        if benchmark.sources:
            missing = _missing(benchmark, run, hub_away)
            if missing:
                yield unseen(CHECK, f"{benchmark.title} will have no score: {missing}")
            else:
                yield Finding(CHECK, True, f"{benchmark.title}: its questions can be read")


def _missing(benchmark: Benchmark[Any], run: PlannedRun, hub_away: bool) -> str:
    if benchmark.runs_programs and (reason := why_not(run.recipe.runtime)):
        return reason
    if run.local and (package := harness.missing(benchmark.packages)):
        return f"the package {package} is not installed ({install_command(harness.EXTRA)})"
    for source in benchmark.sources:
        if source.source.startswith("hub:") and hub_away:
            return "the hub does not answer"
        try:
            if next(iter(sources.rows(source, run.store)), None) is None:
                return f"{source.source} has no row"
        except MoaaError as error:
            return str(error)
    return ""
