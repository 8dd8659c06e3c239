"""The account of a retraining: for programs as JSON, for people as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Final

from moaa.registry.production import ProductionEntry
from moaa.retrain.budget import Plan
from moaa.retrain.inputs import Compared
from moaa.retrain.outcome import RetrainOutcome

DIGEST: Final = 12
"""How many characters of a digest are shown."""


@dataclass(kw_only=True)
class Account:
    """Everything that is known about a retraining, filled in during it."""

    name: str
    """The name of the published model."""
    recipe: str
    """The recipe's file."""
    started: str
    """ISO 8601, UTC; `ended` too."""
    ended: str = ""
    production: ProductionEntry | None = None
    """The version that the inputs were compared with."""
    inputs: Sequence[Compared] = ()
    texts: tuple[str, str] = ("", "")
    """The recipe of the version in production, and the recipe now."""
    plan: Plan | None = None
    run: str = ""
    report: str = ""
    """The address of the run's report."""
    outcome: RetrainOutcome = field(
        default_factory=lambda: RetrainOutcome("failed", "the command was stopped before its end")
    )

    @property
    def changed(self) -> list[Compared]:
        """Return the inputs that have changed."""
        return [each for each in self.inputs if each.changed]

    @property
    def findings(self) -> Sequence[Mapping[str, Any]]:
        """Return what the gate's rules found; empty if it did not decide."""
        return self.outcome.decision.get("findings") or ()

    def to_json(self) -> dict[str, Any]:
        """Return everything, in the form of `retrain.json`."""
        outcome = self.outcome
        return {
            "name": self.name,
            "recipe": self.recipe,
            "started": self.started,
            "ended": self.ended,
            "state": outcome.state,
            "exit_status": outcome.exit_status,
            "why": outcome.why,
            "production": asdict(self.production) if self.production else None,
            "inputs": [asdict(each) | {"changed": each.changed} for each in self.inputs],
            "plan": _plan(self.plan) if self.plan else None,
            "run": self.run,
            "report": self.report,
            "version": dict(outcome.version) if outcome.version else None,
            "decision": dict(outcome.decision) or None,
        }


def headline(account: Account) -> str:
    """Return the outcome in one line: `aligned: refused`."""
    outcome = account.outcome
    what = f", version {outcome.version['version']}" if outcome.version else ""
    return f"{account.name}: {outcome.state}{what}"


def differences(inputs: Sequence[Compared]) -> Iterator[str]:
    """Yield a line for each input that has changed, with its old and its new digest."""
    for each in inputs:
        if each.changed:
            yield f"{each.name}: {short(each.before) or 'none'} -> {short(each.now)}"


def short(digest: str) -> str:
    """Return the start of a digest; a version is returned in full."""
    return digest[:DIGEST]


def _plan(plan: Plan) -> dict[str, Any]:
    return {
        "usd": plan.usd,
        "gpu_hours": plan.gpu_hours,
        "unpriced": list(plan.unpriced),
        "unrated": list(plan.unrated),
        "lines": [asdict(each) for each in plan.lines],
    }
