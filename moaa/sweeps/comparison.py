"""The results of a sweep: scores with intervals, and costs; one row for each variant.

Each measure has a table of its own: variants are its rows, the models that were measured its
columns. So a comparison grows downwards, and each table fits a screen.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from moaa.declaration import needed_by
from moaa.recipe.evaluation import HEAD_TO_HEAD
from moaa.recipe.load import digest_of
from moaa.records import GOOD
from moaa.report import charts
from moaa.report.tables import GpuUse, cost_usd, gpu_use
from moaa.report.view import RunView, StageView, by_model
from moaa.report.words import count, seconds
from moaa.sweeps.document import Sweep, Variant

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table


WIN_RATE: Final = "win rate against"
CHANGED: Final = "changed since it ran"


class Score(NamedTuple):
    """One number of a variant, with its interval if it has one."""

    value: float
    low: float | None
    high: float | None
    n: int
    """How many prompts, questions or pairs it rests on."""

    @property
    def text(self) -> str:
        """Return `0.612 (0.550 to 0.670), n 80`."""
        if self.low is None or self.high is None:
            return f"{self.value:.4g}, n {self.n}"
        return f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f}), n {self.n}"

    @property
    def share(self) -> bool:
        """Return whether it is a share with its interval, which a chart can show."""
        return self.low is not None and self.high is not None and 0 <= self.low <= self.high <= 1


Scores = dict[str, dict[str, Score]]
"""By measure, such as `win rate against base`; then by the model that was measured."""


@dataclass(frozen=True, slots=True)
class VariantOutcome:
    """The result of a variant's run, and what the run used: reused stages cost nothing."""

    variant: Variant
    state: str
    """`done`, `failed` …; `not run`, `over the budget`, or `changed since it ran`."""
    scores: Scores
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
            "scores": {
                measure: {model: score._asdict() for model, score in found.items()}
                for measure, found in self.scores.items()
            },
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
    begun = bool(run.records)
    run = _of_last_attempt(run, digest_of(variant.loaded.recipe))
    if not run.records:
        return VariantOutcome(variant, state or (CHANGED if begun else "not run"), {})
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


def _of_last_attempt(run: RunView, recipe: str) -> RunView:
    """Return the run without stages of another recipe than the one with this digest, and without
    those whose inputs were made again since: a variant's run keeps its name if the variant is
    changed, and then its stages still have the results of before."""
    first = run.rounds[0]
    if run.earlier and any(_is_other(stage, recipe) for stage in first.stages):
        return RunView(())  # later rounds are made from the first
    since = max((record["started"] for each in run.earlier for record in each.records), default="")
    kept: dict[str, StageView] = {}
    for stage in run.stages:
        made_from = {each["fingerprint"] for each in stage.manifest.get("parents", ())}
        needed = needed_by(stage.declaration) if stage.declaration else ()
        inputs = [kept[name] for name in needed if name in kept and run.stage(name).record]
        old = _is_other(stage, recipe) or any(each.status not in GOOD for each in inputs)
        if stage.record and stage.name != "preflight":  # which only the first round has
            old |= stage.record["started"] < since
        if stage.manifest:
            old |= any(each.manifest.get("fingerprint") not in made_from for each in inputs)
        kept[stage.name] = replace(stage, record=None) if old else stage
    return replace(run, stages=tuple(kept.values()))


def _is_other(stage: StageView, recipe: str) -> bool:
    return stage.record is not None and stage.record.get("recipe", recipe) != recipe


def scores_of(facts: dict[str, Any]) -> Scores:
    """Return what an evaluation measured: the win rates, and each benchmark's main numbers. A
    measure's name has its metric and its judge: numbers of two judges are two measures."""
    scores: Scores = {}
    for rate in by_model(facts.get("win_rates") or []):
        measure = scores.setdefault(f"{WIN_RATE} {rate['against']}", {})
        measure[rate["model"]] = Score(rate["rate"], rate["low"], rate["high"], rate["n"])
    for name, benchmark in (facts.get("benchmarks") or {}).items():
        judged = f", judged by {benchmark['judge']}" if benchmark.get("judge") else ""
        for each in benchmark["scores"]:
            if each["main"] and name != HEAD_TO_HEAD:
                measure = scores.setdefault(f"{name}: {each['metric']}{judged}", {})
                measure[each["entrant"]] = Score(*(each[key] for key in Score._fields))
    return scores


def measures_of(outcomes: Sequence[VariantOutcome]) -> Iterator[tuple[str, list[str]]]:
    """Yield each measure with the models that it has in any variant, in the order in which they
    come."""
    for measure in dict.fromkeys(name for each in outcomes for name in each.scores):
        models = dict.fromkeys(model for each in outcomes for model in each.scores.get(measure, ()))
        yield measure, list(models)


def tables(outcomes: Sequence[VariantOutcome]) -> RenderableType:
    """Return the comparison for a terminal."""
    from rich.console import Group

    measured = (
        _table(measure, models, [(each, _texts(each, measure, models)) for each in outcomes])
        for measure, models in measures_of(outcomes)
    )
    rows = [(each, [each.state, each.labelled, *_costs(each)]) for each in outcomes]
    used = _table("costs", ["state", "pairs", *COSTS], rows)
    return Group(*(part for each in (*measured, used) for part in ("", each)))


def _table(
    title: str, columns: Sequence[str], rows: Sequence[tuple[VariantOutcome, list[str]]]
) -> Table:
    from rich.table import Table
    from rich.text import Text

    grid = Table(
        title=Text(title), title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    grid.add_column("variant", no_wrap=True)
    for column in columns:
        grid.add_column(Text(column), justify="right" if column in COSTS else "left")
    for each, cells in rows:
        grid.add_row(Text(each.variant.name, style="bold"), *map(Text, cells))
    return grid


def _texts(each: VariantOutcome, measure: str, models: Sequence[str]) -> list[str]:
    found = each.scores.get(measure, {})
    return [found[model].text if model in found else "" for model in models]


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
        measures=list(measures_of(outcomes)),
        win_rate=WIN_RATE,
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
