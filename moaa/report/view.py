"""A run for the report: all its stages in order, with or without a record. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import Any

from moaa.declaration import Declaration
from moaa.ledger import Ledger, ModelUse
from moaa.recipe.evaluation import BASE, PRODUCTION
from moaa.records import Record, RunStatus, StageError, by_round, run_status
from moaa.report.words import NBSP, count, percent
from moaa.statistics import WIN_SD, required_n

BROKEN = ("failed", "terminated", "running")
"""The states of a stage that did not finish."""


@dataclass(frozen=True)
class StageView:
    """One stage of a run."""

    name: str
    record: Record | None = None
    """The stage's record; None if it left none."""
    declaration: Declaration | None = None
    """The stage's declaration; None for a stage of another version of moaa."""

    @property
    def status(self) -> str:
        """Return done, reused, failed, terminated, running (or killed), or missing (no record)."""
        return self.record["status"] if self.record else "missing"

    @property
    def purpose(self) -> str:
        """Return the stage's purpose in a few words."""
        return self.declaration.purpose if self.declaration else ""

    @property
    def seconds(self) -> float:
        """Return how long the stage took."""
        return self.record["seconds"] if self.record else 0.0

    @property
    def manifest(self) -> Mapping[str, Any]:
        """Return the manifest of its artifact; {} if it has none."""
        return (self.record and self.record["manifest"]) or {}

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return the numbers that the stage reports itself."""
        return (self.record and self.record.get("facts")) or self.manifest.get("facts") or {}

    @property
    def error(self) -> StageError | None:
        """Return why it failed."""
        return self.record["error"] if self.record else None

    @cached_property
    def ledger(self) -> Ledger:
        """Return what the stage counted."""
        return Ledger.from_json((self.record and self.record["ledger"]) or {})

    @property
    def uses(self) -> dict[str, ModelUse]:
        """Return the use of each model, over all attempts at this result."""
        return self.ledger.in_all()

    @property
    def rows_in(self) -> int:
        """Return how many rows it read."""
        return self.ledger.rows.get("in", 0)

    @property
    def kept(self) -> int:
        """Return how many rows it kept."""
        return self.ledger.rows.get("kept", 0)

    @property
    def other_rows(self) -> dict[str, int]:
        """Return its counts besides in and kept: pairs, turns, merged answers."""
        return {name: n for name, n in self.ledger.rows.items() if name not in ("in", "kept")}

    @property
    def headline(self) -> str:
        """Return the result in one number."""
        if self.status not in ("done", "reused"):
            return ""
        return self.declaration.headline(self.ledger.rows, self.facts) if self.declaration else ""


def by_model(rates: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return win rates with the last training first: dpo, then sft, then all others. A model's
    rates begin with the version in production, if it was measured, then base, in the gate's order.
    The first one is the headline of a run, wherever it is shown."""
    models, others = ("dpo", "sft"), (PRODUCTION, BASE)

    def place(rate: Mapping[str, Any]) -> tuple[int, int]:
        return _place(rate["model"], models), _place(rate["against"], others)

    return sorted(rates, key=place)


def _place(name: str, known: Sequence[str]) -> int:
    return known.index(name) if name in known else len(known)


@dataclass(frozen=True)
class RunView:
    """The stages of a run: those of a whole run in order, then others that left a record."""

    stages: tuple[StageView, ...]
    """The stages of the last round, if the run has several."""
    earlier: tuple[RunView, ...] = ()
    """The rounds before, each with the run's preflight."""

    @classmethod
    def of(cls, records: Sequence[Record], stages: Iterable[Declaration]) -> RunView:
        """Return the run with these records. `stages`: all declared stages; one that only some
        recipes use is shown if this run had it."""
        *earlier, last = by_round(records)
        first = [record for record in records if record["stage"] == "preflight"]
        declared = tuple(stages)
        rounds = [cls._of_round([*first, *each], declared) for each in (*earlier, last)]
        return cls(rounds[-1].stages, tuple(rounds[:-1]))

    @classmethod
    def _of_round(cls, records: Sequence[Record], stages: Iterable[Declaration]) -> RunView:
        found = {record["stage"]: record for record in records}
        before = found.get("preflight")
        planned = (before.get("facts", {}) if before else {}).get("stages", ())
        declared = {
            stage.name: stage
            for stage in stages
            if stage.chosen is None or stage.name in found or stage.name in planned
        }
        names = [*declared, *(name for name in found if name not in declared)]
        return cls(tuple(StageView(name, found.get(name), declared.get(name)) for name in names))

    def stage(self, name: str) -> StageView:
        """Return the stage of this name; without a record if the run has no such stage."""
        return next((stage for stage in self.stages if stage.name == name), StageView(name))

    @property
    def records(self) -> list[Record]:
        """Return all records, of all rounds."""
        found = [stage.record for run in self.rounds for stage in run.stages if stage.record]
        return list({id(record): record for record in found}.values())

    @property
    def rounds(self) -> tuple[RunView, ...]:
        """Return the rounds; the last one has only its own stages."""
        return (*self.earlier, RunView(self.stages)) if self.earlier else (self,)

    @property
    def present(self) -> tuple[StageView, ...]:
        """Return the stages that left a record."""
        return tuple(stage for stage in self.stages if stage.record)

    @property
    def name(self) -> str:
        """Return the recipe's name; `run` if no stage left a record."""
        names = [stage.manifest.get("name") for stage in self.stages]
        names += [record.get("name") for record in self.records]
        return next(filter(None, names), "run")

    @property
    def attempt(self) -> int:
        """Return how many times the stage with the most attempts was started."""
        return max((record.get("attempt", 1) for record in self.records), default=1)

    @property
    def id(self) -> str:
        """Return the run's id."""
        return next((record["run_id"] for record in self.records), "")

    @property
    def broken(self) -> tuple[StageView, ...]:
        """Return the stages that failed, were terminated or killed, or are still running."""
        every = (stage for run in self.rounds for stage in run.stages)
        return tuple(stage for stage in every if stage.status in BROKEN)

    @property
    def status(self) -> RunStatus:
        """Return how the run ended, in one word."""
        return run_status(self.records, [stage.name for stage in self.stages])

    @property
    def started(self) -> datetime | None:
        """Return when the first stage started."""
        return min((_time(record["started"]) for record in self.records), default=None)

    @property
    def wall_s(self) -> float:
        """Return the seconds from the first start to the last end."""
        ends = [_time(record["ended"]) for record in self.records if record["ended"]]
        return (max(ends) - self.started).total_seconds() if ends and self.started else 0.0

    @property
    def win_rates(self) -> list[Mapping[str, Any]]:
        """Return the win rates of evaluate, the last training first."""
        return by_model(self.stage("evaluate").facts.get("win_rates") or [])

    @property
    def verdict(self) -> str:
        """Return the result of the run in one sentence."""
        if self.status == "failed":
            name = next(stage.name for stage in self.broken if stage.status == "failed")
            return f"{name} failed; the stages after it did not run."
        if self.status == "terminated":
            return (
                f"{self.broken[0].name} was terminated: by a user, a time-out or the node. The "
                "same recipe continues from there."
            )
        if self.status == "unfinished":
            return f"{self.broken[0].name} did not finish: it was killed, or is still at work."
        if not self.win_rates:
            if not self.present:
                return "No stage left a record."
            measured = self.stage("evaluate").facts.get("benchmarks") or {}
            if names := [each["title"] for each in measured.values() if each["scores"]]:
                return f"No pair was compared; measured: {', '.join(names)}."
            return f"The run went as far as {self.present[-1].name}; nothing was evaluated."
        return judged(self.win_rates[0])


def judged(rate: Mapping[str, Any]) -> str:
    """Return a win rate in words. If its interval includes 50 %, no difference is shown."""
    who = f"The {rate['model'].upper()} model"
    numbers = f"it wins {percent(rate['rate'])} of {count(rate['n'])} held-out prompts"
    interval = f"95{NBSP}% interval {percent(rate['low'])} to {percent(rate['high'])}"
    if rate["low"] > 0.5:
        return f"{who} beats the {rate['against']} model: {numbers} ({interval})."
    if rate["high"] < 0.5:
        return f"{who} loses to the {rate['against']} model: {numbers} ({interval})."
    wins = f"{percent(rate['rate'])} of {count(rate['n'])} held-out prompts"
    return (
        f"No difference from the {rate['against']} model is shown: "
        f"the {rate['model'].upper()} model wins {wins}, and its {interval} includes 50{NBSP}%."
        f"{_needed(rate['rate'])}"
    )


def _needed(rate: float) -> str:
    """Return how many prompts would show such a rate, in 80 % of the cases. Empty for a rate of a
    half."""
    if abs(rate - 0.5) < 0.005:
        return ""
    prompts = required_n(abs(rate - 0.5), WIN_SD)
    return f" To show such a rate takes about {count(prompts)} prompts."


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)
