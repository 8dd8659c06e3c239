"""The page, section by section. The templates beside this file render it."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from markupsafe import Markup

from moaa.report import charts, tables
from moaa.report.benchmarks import benchmarks
from moaa.report.examples import Read, gather
from moaa.report.rounds import decision_of, rounds, said
from moaa.report.scores import position, share_chart, spread
from moaa.report.view import RunView, judged
from moaa.report.words import count, number, percent, seconds

if TYPE_CHECKING:
    from jinja2 import Environment

T = TypeVar("T")
_HERE = Path(__file__).parent

_ONE_CURVE: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("sft", "loss", "SFT loss", {}),
    ("dpo", "loss", "DPO loss", {"mark": 0.6931}),
    ("dpo", "rewards/margins", "DPO reward margin", {"mark": 0.0}),
    ("dpo", "rewards/accuracies", "DPO reward accuracy", {"low": 0.0, "high": 1.0, "mark": 0.5}),
)
HELD_OUT = ", held out"
_CURVES = [
    (stage, key, title + part, options)
    for stage, key, title, options in _ONE_CURVE
    for part in ("", HELD_OUT)
]
_MARKS = {
    "DPO loss": "dashed: ln 2, where DPO begins",
    "DPO reward accuracy": "dashed: chance",
    "DPO reward margin": "dashed: zero",
}


def page(run: RunView, read: Read, made: datetime | None = None) -> str:
    """Return the page. `read(manifest, table)` returns rows of artifacts; `made`: default now.

    The page says what could not be read or made.
    """
    guard = _Guard()
    examples, unread = guard("examples", gather, run, read) or ({}, [])
    sections = _sections(run, examples, guard)
    script = (_HERE / "page.js").read_text()
    return (
        _environment()
        .get_template("page.html")
        .render(
            run=run,
            decision=decision_of(run),
            rounds_said=run.earlier and guard("rounds", said, run),
            totals=guard("totals", totals, run),
            sections=sections,
            problems=guard.problems + unread,
            made=made or datetime.now(UTC),
            style=Markup((_HERE / "page.css").read_text()),
            script=Markup(script),
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )


class _Guard:
    """Makes parts of the page. A broken run needs its report, whatever is in its records."""

    def __init__(self) -> None:
        self.problems: list[str] = []

    def __call__(self, name: str, make: Callable[..., T], *given: Any) -> T | None:
        """Return the result of `make`, or None: then `problems` says why not."""
        try:
            return make(*given)
        except Exception as error:
            why = f"{type(error).__name__}: {error}"
            self.problems.append(f"The section '{name}' could not be made: {why}")
            return None


def _sections(run: RunView, examples: Any, guard: _Guard) -> list[tuple[str, str, Any]]:
    """Return anchor, title and content of each section that has something to show."""
    shown = {
        "run": run,
        "slowest": max((stage.seconds for stage in run.present), default=0.0),
        "funnel": guard("rows", tables.funnel, run),
        "calls": guard("calls", tables.calls, run),
        "plan": guard("plan", tables.plan, run),
        "curves": guard("training", curves, run),
        "lengths": guard("answer lengths", lengths, run),
        "judges": guard("judges", judges, run),
        "benchmarks": guard("benchmarks", benchmarks, run),
        "events": guard("events", events, run),
        "steps": guard("steps", tables.steps, run),
        "settings": guard("artifacts", settings, run),
        "examples": examples,
    }
    parts: Any = _environment().get_template("parts.html").make_module(shown)

    def browser() -> Markup:
        return Markup(_environment().get_template("examples.html").render(shown))

    def scores(found: dict[str, Any]) -> Markup:
        return Markup(_environment().get_template("benchmarks.html").render(shown=found))

    def decided(decision: dict[str, Any]) -> Markup:
        return Markup(_environment().get_template("gate.html").render(decision=decision))

    decision: Any = decision_of(run)

    def all_rounds(found: dict[str, Any]) -> Markup:
        return Markup(_environment().get_template("rounds.html").render(found))

    several = guard("rounds", rounds, run)
    made: list[tuple[str, str, Any]] = [
        ("rounds", "Rounds", several and guard("rounds", all_rounds, several)),
        ("gate", "Gate", decision and guard("gate", decided, decision)),
        ("pipeline", "Pipeline", guard("pipeline", parts.pipeline)),
        ("rows", "Rows", shown["funnel"] and guard("rows", parts.rows)),
        ("training", "Training", shown["curves"] and guard("training", parts.training)),
        (
            "evaluation",
            "Evaluation",
            (run.win_rates or shown["lengths"]) and guard("evaluation", parts.evaluation),
        ),
        (
            "benchmarks",
            "Benchmarks",
            shown["benchmarks"] and guard("benchmarks", scores, shown["benchmarks"]),
        ),
        ("judges", "Judges", shown["judges"] and guard("judges", parts.judging)),
        (
            "calls",
            "Calls and tokens",
            (shown["calls"] or shown["plan"]) and guard("calls", parts.calls_and_tokens),
        ),
        ("examples", "Examples", guard("examples", browser) if any(examples.values()) else None),
        ("artifacts", "Artifacts", shown["settings"] and guard("artifacts", parts.artifacts)),
    ]
    return [section for section in made if section[2]]


def failure(run_id: str, why: str) -> str:
    """Return a page that says why there is no report."""
    template = _environment().get_template("failure.html")
    style = Markup((_HERE / "page.css").read_text())
    return template.render(run_id=run_id, why=why, style=style)


def totals(run: RunView) -> dict[str, Any]:
    """Return tokens and calls of the whole run, and their cost if the recipe has prices."""
    present = [stage for each in run.rounds for stage in each.present]
    uses = [use for stage in present for use in stage.uses.values()]
    costs = [
        cost
        for each in run.rounds
        for reused in (False, True)
        if (cost := tables.cost_usd(each, reused=reused)) is not None
    ]
    return {
        "calls": sum(use.calls for use in uses),
        "reused_calls": sum(
            use.calls for s in present if s.status == "reused" for use in s.uses.values()
        ),
        "prompt_tokens": sum(use.prompt_tokens for use in uses),
        "completion_tokens": sum(use.completion_tokens for use in uses),
        "cost": sum(costs) if costs else None,
        "rejected": sum(sum(stage.ledger.rejected.values()) for stage in present),
    }


def curves(run: RunView) -> list[dict[str, Any]]:
    """Return the training curves: title, chart, first and last value."""
    found = []
    for stage, key, title, options in _CURVES:
        facts = run.stage(stage).facts
        if title.endswith(HELD_OUT):
            facts = facts.get("validation") or {}
        curve = facts.get("curve") or []
        points = [(point["step"], point[key]) for point in curve if point.get(key) is not None]
        if points:
            chart = charts.line(points, **options)
            ends = f"{number(points[0][1])} → {number(points[-1][1])}"
            found.append(
                {
                    "title": title,
                    "chart": chart,
                    "ends": ends,
                    "mark": _MARKS.get(title.removesuffix(HELD_OUT), ""),
                }
            )
    return found


def lengths(run: RunView) -> list[dict[str, Any]]:
    """Return the answer lengths of each model, on the same axis."""
    facts = run.stage("evaluate").facts.get("lengths") or {}
    highest = max(
        (max(each["histogram"]["counts"], default=0) for each in facts.values()), default=0
    )
    order = ("base", "sft", "dpo")
    models = sorted(facts, key=lambda model: order.index(model) if model in order else len(order))
    found = []
    for model in models:
        histogram = facts[model]["histogram"]
        chart = charts.histogram(
            histogram["edges"],
            histogram["counts"],
            highest=highest,
            mark=facts[model]["mean_tokens"],
        )
        found.append(
            {
                "model": model,
                "answers": facts[model]["answers"],
                "tokens": spread(facts[model], "mean_tokens", number),
                "cut": spread(facts[model], "truncated", percent),
                "longest": histogram["edges"][-1],
                "chart": chart,
            }
        )
    return found


def judges(run: RunView) -> list[dict[str, Any]]:
    """Return the criteria of the judges of label and evaluate, and their position bias."""
    found = []
    for name in ("label", "evaluate"):
        facts = run.stage(name).facts
        if facts.get("criteria") and any(facts["criteria"].values()):
            bias = facts.get("position_bias") or {}
            criteria = sorted(facts["criteria"].items(), key=lambda item: -item[1])
            found.append(
                {
                    "stage": name,
                    "criteria": criteria,
                    "most": criteria[0][1],
                    "bias": position(facts),
                    "hard": bias.get("hard"),
                    "first_chart": share_chart(bias, "first_wins"),
                    "disagree_chart": share_chart(facts, "disagreement", mark=None),
                    "adaptive": facts.get("adaptive"),
                }
            )
    return found


def events(run: RunView) -> list[tuple[str, str, int]]:
    """Return (stage, event, count)."""
    return [
        (stage.name, event, n)
        for stage in run.present
        for event, n in stage.ledger.events.most_common()
    ]


def settings(run: RunView) -> list[dict[str, Any]]:
    """Return each artifact: its address, its inputs, and the part of the recipe it depends on."""
    return [
        {
            "stage": stage.name,
            "uri": stage.manifest["uri"],
            "fingerprint": stage.manifest["fingerprint"],
            "created": stage.manifest["created"],
            "parents": [parent["name"] for parent in stage.manifest["parents"]],
            "part": json.dumps(stage.manifest["part"], indent=1, ensure_ascii=False),
        }
        for stage in run.present
        if stage.manifest
    ]


@cache
def _environment() -> Environment:
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        autoescape=True, loader=FileSystemLoader(_HERE), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(count=count, percent=percent, seconds=seconds, number=number)
    environment.globals.update(
        interval=charts.interval, segments=charts.segments, matrix=charts.matrix, judged=judged
    )
    return environment
