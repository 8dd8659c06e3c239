"""A run as the report sees it: stages in the pipeline's order, whether their records are there or
not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from moaa.declaration import Declaration
from moaa.ledger import Ledger, ModelUse
from moaa.report.words import NBSP, count, percent, seconds


@dataclass(frozen=True)
class StageView:
    """One stage of a run. `status`: done, reused, failed, running (or killed), missing (no record)."""

    name: str
    record: Mapping[str, Any] = field(default_factory=dict)
    declaration: Declaration | None = None
    """None for a stage that is not declared here: another version of moaa ran it."""

    @property
    def status(self) -> str:
        return self.record.get("status", "missing")

    @property
    def purpose(self) -> str:
        return self.declaration.purpose if self.declaration else ""

    @property
    def seconds(self) -> float:
        return float(self.record.get("seconds") or 0)

    @property
    def manifest(self) -> Mapping[str, Any]:
        return self.record.get("manifest") or {}

    @property
    def facts(self) -> Mapping[str, Any]:
        return self.record.get("facts") or self.manifest.get("facts") or {}

    @property
    def error(self) -> Mapping[str, Any] | None:
        return self.record.get("error")

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger.from_json(self.record.get("ledger") or {})

    @property
    def uses(self) -> dict[str, ModelUse]:
        """What the stage used of each model, over all attempts at its result."""
        return self.ledger.in_all()

    @property
    def rows_in(self) -> int:
        return self.ledger.rows.get("in", 0)

    @property
    def kept(self) -> int:
        return self.ledger.rows.get("kept", 0)

    @property
    def other_rows(self) -> dict[str, int]:
        """What the stage itself counted beside in and kept: pairs, turns, merged answers."""
        return {name: n for name, n in self.ledger.rows.items() if name not in ("in", "kept")}

    @property
    def headline(self) -> str:
        """The one number that says what came out."""
        if self.status not in ("done", "reused"):
            return ""
        return self.declaration.headline(self.ledger.rows, self.facts) if self.declaration else ""


def by_model(rates: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Win rates, the last training first: dpo, then sft, then whatever else was compared."""
    order = ("dpo", "sft")
    return sorted(
        rates, key=lambda rate: order.index(rate["model"]) if rate["model"] in order else len(order)
    )


@dataclass(frozen=True)
class Run:
    """All stages of a run: those of a whole run in their order, then any other that left a record."""

    stages: tuple[StageView, ...]

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], stages: Iterable[Declaration]) -> Run:
        found = {record["stage"]: record for record in records}
        declared = {stage.name: stage for stage in stages}
        names = [*declared, *(name for name in found if name not in declared)]
        return cls(
            tuple(StageView(name, found.get(name, {}), declared.get(name)) for name in names)
        )

    def stage(self, name: str) -> StageView:
        return next(stage for stage in self.stages if stage.name == name)

    @property
    def present(self) -> tuple[StageView, ...]:
        return tuple(stage for stage in self.stages if stage.record)

    @property
    def name(self) -> str:
        """The recipe's name, where any stage got as far as a manifest."""
        return next(
            (stage.manifest["name"] for stage in self.stages if stage.manifest.get("name")), "run"
        )

    @property
    def id(self) -> str:
        return next(
            (stage.record["run_id"] for stage in self.stages if stage.record.get("run_id")), ""
        )

    @property
    def broken(self) -> tuple[StageView, ...]:
        """Stages that failed, or whose record still says running: killed, or not over yet."""
        return tuple(stage for stage in self.stages if stage.status in ("failed", "running"))

    @property
    def status(self) -> str:
        """failed, unfinished (a stage was killed or still runs), partial (stages are missing),
        reused (nothing to do), done."""
        if any(stage.status == "failed" for stage in self.stages):
            return "failed"
        if self.broken:
            return "unfinished"
        if any(stage.status == "missing" for stage in self.stages if stage.name != "preflight"):
            return "partial"
        made = [stage for stage in self.present if stage.name != "preflight"]
        return "reused" if made and all(stage.status == "reused" for stage in made) else "done"

    @property
    def started(self) -> datetime | None:
        return min(
            (
                _time(stage.record["started"])
                for stage in self.present
                if stage.record.get("started")
            ),
            default=None,
        )

    @property
    def wall_s(self) -> float:
        """From the first start to the last end."""
        ends = [_time(stage.record["ended"]) for stage in self.present if stage.record.get("ended")]
        return (max(ends) - self.started).total_seconds() if ends and self.started else 0.0

    @property
    def win_rates(self) -> list[Mapping[str, Any]]:
        return by_model(self.stage("evaluate").facts.get("win_rates") or [])

    @property
    def verdict(self) -> str:
        """One sentence: what came of the run."""
        if self.status == "failed":
            return f"{self.broken[0].name} failed, and what follows it did not run."
        if self.status == "unfinished":
            return f"{self.broken[0].name} did not finish: it was killed, or is still at work."
        if not self.win_rates:
            last = self.present[-1].name if self.present else None
            return (
                f"The run went as far as {last}; nothing was evaluated."
                if last
                else "No stage has left a record."
            )
        return judged(self.win_rates[0])


def judged(rate: Mapping[str, Any]) -> str:
    """A win rate in words. Its interval decides: where 50 % lies within, no difference is shown."""
    who = f"The {rate['model'].upper()} model"
    numbers = f"it wins {percent(rate['rate'])} of {count(rate['n'])} held-out prompts"
    interval = f"95{NBSP}% interval {percent(rate['low'])} to {percent(rate['high'])}"
    if rate["low"] > 0.5:
        return f"{who} beats the {rate['against']} model: {numbers} ({interval})."
    if rate["high"] < 0.5:
        return f"{who} loses to the {rate['against']} model: {numbers} ({interval})."
    return f"No difference from the {rate['against']} model is shown: {who[0].lower()}{who[1:]} wins {percent(rate['rate'])} of \
{count(rate['n'])} held-out prompts, and its {interval} includes 50{NBSP}%."


def funnel(run: Run) -> list[dict[str, Any]]:
    """For each stage that took rows in: in, kept, rejected by reason (most frequent first), and
    what else it counted."""
    return [
        {
            "stage": stage.name,
            "in": stage.rows_in,
            "kept": stage.kept,
            "rejected": stage.ledger.rejected.most_common(),
            "other": stage.other_rows,
            "unfinished": stage.status in ("failed", "running"),
            "reused": stage.status == "reused",
        }
        for stage in run.present
        if stage.ledger.rows or stage.ledger.rejected
    ]


def calls(run: Run) -> list[dict[str, Any]]:
    """Calls and tokens by stage and model."""
    return [
        {
            "stage": stage.name,
            "model": model,
            "use": use,
            "latency": use.seconds / use.calls if use.calls else None,
            "attempts": stage.ledger.attempts,
            "reused": stage.status == "reused",
        }
        for stage in run.present
        for model, use in sorted(stage.uses.items())
    ]


_COUNTS = ("calls", "prompt_tokens", "completion_tokens", "steps", "train_tokens")


def plan(run: Run) -> list[dict[str, Any]]:
    """The plan beside the truth, by stage and model; empty where preflight left no plan. None: not
    planned, or not run."""
    planned = {
        (each["stage"], each["model"]): each
        for each in run.stage("preflight").facts.get("plan") or []
    }
    if not planned:
        return []
    truth: dict[tuple[str, str], dict[str, int]] = {}
    for each in calls(run):
        use = each["use"]
        truth[each["stage"], each["model"]] = {
            # An answer from the journal is that of a call: of an earlier attempt, which is counted
            # then, or of this one.
            "calls": use.calls + (use.journal if each["attempts"] == 1 else 0),
            "prompt_tokens": use.prompt_tokens,
            "completion_tokens": use.completion_tokens,
        }
    for key, each in planned.items():
        facts = run.stage(key[0]).facts
        if each.get("steps") and facts.get("steps"):
            truth[key] = {"steps": facts["steps"], "train_tokens": facts.get("tokens", 0)}
    order = {stage.name: number for number, stage in enumerate(run.stages)}
    keys = sorted({*planned, *truth}, key=lambda key: (order.get(key[0], len(order)), key[1]))
    return [
        {
            "stage": stage,
            "model": model,
            "counts": {
                name: (
                    planned.get((stage, model), {}).get(name),
                    truth.get((stage, model), {}).get(name),
                )
                for name in _COUNTS
            },
        }
        for stage, model in keys
    ]


def cost_usd(run: Run, *, reused: bool) -> float | None:
    """Dollars for the tokens of this run's own stages, or of the reused ones, at the recipe's
    prices; None without prices."""
    prices = run.stage("preflight").facts.get("prices") or {}
    priced = [each for each in calls(run) if each["model"] in prices and each["reused"] == reused]
    if not priced:
        return None
    return sum(
        (
            each["use"].prompt_tokens * prices[each["model"]]["prompt"]
            + each["use"].completion_tokens * prices[each["model"]]["completion"]
        )
        / 1e6
        for each in priced
    )


def steps(run: Run) -> list[tuple[str, str]]:
    """Where the time of each stage went: (stage, `engines 39 s, asking 47 s`)."""
    return [
        (stage.name, ", ".join(f"{step} {seconds(s)}" for step, s in stage.ledger.seconds.items()))
        for stage in run.present
        if stage.ledger.seconds
    ]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
