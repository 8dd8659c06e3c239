"""The results of a sweep: scores with intervals and costs, one row for each variant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from moaa.report import charts
from moaa.report.figures import figures
from moaa.report.tables import GpuUse, cost_usd, gpu_use
from moaa.report.view import RunView
from moaa.report.words import count, seconds
from moaa.sweeps.document import Sweep, Variant

if TYPE_CHECKING:
    from rich.console import RenderableType


HEAD_TO_HEAD: Final = "head_to_head"
"""The benchmark whose numbers are the win rates."""


class Score(NamedTuple):
    """One number of a variant, with its interval if it has one."""

    value: float
    low: float | None
    high: float | None

    @property
    def text(self) -> str:
        """Return `0.612 (0.55 to 0.67)`."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"

    @property
    def share(self) -> bool:
        """Return whether it is a share with its interval, which a chart can show."""
        return self.low is not None and self.high is not None and 0 <= self.low <= self.high <= 1


@dataclass(frozen=True, slots=True)
class VariantOutcome:
    """The result of a variant's run, and what the run used: reused stages cost nothing."""

    variant: Variant
    state: str
    """`done`, `failed` …; `not run`, or `over the budget`."""
    scores: dict[str, Score]
    labelled: str = ""
    calls: int = 0
    tokens: int = 0
    usd: float | None = None
    """For tokens at the models' prices."""
    seconds: float = 0.0
    error: str = ""
    gpus: GpuUse | None = None
    """What its own stages held of GPUs; None if the recipe has none."""

    def to_json(self) -> dict[str, Any]:
        """Return the outcome as plain data."""
        return {
            "variant": self.variant.name,
            "about": self.variant.about,
            "set": list(self.variant.sets),
            "run": self.variant.run_id,
            "state": self.state,
            "scores": {name: score._asdict() for name, score in self.scores.items()},
            "calls": self.calls,
            "tokens": self.tokens,
            "api_usd": self.usd,
            "gpu_hours": self.gpus and self.gpus.hours,
            "gpu_usd": self.gpus and self.gpus.usd,
            "seconds": self.seconds,
            "error": self.error,
        }


def outcome(variant: Variant, run: RunView, state: str = "") -> VariantOutcome:
    """Return the result in the records of a run; `state`: why there are none."""
    if not run.records:
        return VariantOutcome(variant, state or "not run", {})
    own = [stage for stage in run.present if stage.status != "reused"]
    uses = [use for stage in own for use in stage.uses.values()]
    errors = [stage.error["message"] for stage in run.present if stage.error]
    return VariantOutcome(
        variant,
        run.status,
        scores_of({k: v for stage in run.present for k, v in stage.facts.items()}),
        next((stage.headline for stage in run.present if stage.name == "label"), ""),
        sum(use.calls for use in uses),
        sum(use.prompt_tokens + use.completion_tokens for use in uses),
        cost_usd(run, reused=False),
        sum(stage.seconds for stage in own),
        errors[0] if errors else "",
        gpu_use(run),
    )


def scores_of(facts: dict[str, Any]) -> dict[str, Score]:
    """Return the figures of an evaluation that have intervals: the win rates, and each benchmark's
    main numbers with their judge."""
    # Benchmarks follow below, with their judge and their metric.
    found = figures({**facts, "benchmarks": {}})
    scores = {
        name: Score(value, found[f"{name} low"], found[f"{name} high"])
        for name, value in found.items()
        if f"{name} low" in found
    }
    for name, benchmark in (facts.get("benchmarks") or {}).items():
        judged = f" by {benchmark['judge']}" if benchmark.get("judge") else ""
        for each in benchmark["scores"]:
            if each["main"] and name != HEAD_TO_HEAD:
                title = f"{name}, {each['entrant']}: {each['metric']}{judged}"
                scores[title] = Score(each["value"], each["low"], each["high"])
    return scores


def columns_of(outcomes: Sequence[VariantOutcome]) -> list[str]:
    """Return the names of all scores, in the order in which they come."""
    return list(dict.fromkeys(name for each in outcomes for name in each.scores))


def table(sweep: Sweep, outcomes: Sequence[VariantOutcome]) -> RenderableType:
    """Return the comparison for a terminal."""
    from rich.table import Table
    from rich.text import Text

    grid = Table(title=None, box=None, pad_edge=False, header_style="bold")
    grid.add_column("variant", style="bold", no_wrap=True)
    names = columns_of(outcomes)
    for title in ("state", *names, "pairs", *COSTS):
        grid.add_column(title, justify="right" if title in COSTS else "left", overflow="fold")
    for each in outcomes:
        shown = [each.scores[name].text if name in each.scores else "" for name in names]
        cells = [each.state, *shown, each.labelled, *_costs(each)]
        grid.add_row(Text(each.variant.name), *map(Text, cells))
    return grid


def page(sweep: Sweep, outcomes: Sequence[VariantOutcome]) -> str:
    """Return the comparison as one HTML page without scripts."""
    from jinja2 import Environment, FileSystemLoader

    here = Path(__file__).parent
    environment = Environment(
        autoescape=True, loader=FileSystemLoader(here), trim_blocks=True, lstrip_blocks=True
    )
    environment.globals.update(interval=charts.interval)
    style = (here.parent / "report" / "page.css").read_text(encoding="utf-8")
    return environment.get_template("page.html").render(
        sweep=sweep,
        outcomes=outcomes,
        names=columns_of(outcomes),
        costs=_costs,
        cost_titles=COSTS,
        style=style,
        made=datetime.now(UTC),
    )


COSTS: Final = ("calls", "GPU-h", "GPU $", "API $", "time")
"""The columns of what a variant used."""


def _costs(each: VariantOutcome) -> list[str]:
    amounts = (*(each.gpus or (None, None)), each.usd)
    shown = ["" if amount is None else f"{amount:,.2f}" for amount in amounts]
    return [count(each.calls), *shown, seconds(each.seconds)]
