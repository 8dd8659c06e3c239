"""How a retraining ended. All exit statuses of commands that end with a gate's decision are here,
and only here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from moaa import records
from moaa.errors import OUTSIDE
from moaa.records import Record

State = Literal[
    "nothing new",
    "planned",
    "started",
    "promoted",
    "published",
    "refused",
    "undecided",
    "failed",
    "busy",
]
"""nothing new   no input has changed since the version in production; nothing was run
planned       only the plan was asked for
started       the run was started, and the command does not wait for it
promoted      the new version is in production
published     the new version exists; the recipe does not promote it
refused       the gate refuses the new model; production is as it was
undecided     there are too few prompts to decide; production is as it was
failed        no decision: a stage failed, a roll-out was put back, the plan is above the budget
busy          another retraining of the same model is running"""

EXIT: Final[Mapping[State, int]] = {
    "nothing new": 0,
    "planned": 0,
    "started": 0,
    "promoted": 0,
    "published": 0,
    "refused": 3,
    "undecided": 4,
    "failed": 1,
    "busy": OUTSIDE,
}
"""Exit statuses by state, for CI. After an outside fault it is `OUTSIDE`."""

OF_VERDICT: Final[Mapping[str, State]] = {
    "promote": "promoted",
    "refuse": "refused",
    "undecided": "undecided",
}
"""The states that the gate's verdicts lead to."""


@dataclass(frozen=True, slots=True)
class RetrainOutcome:
    """How it ended, why, and what was decided."""

    state: State
    why: str
    version: Mapping[str, str] | None = None
    """The version that was published: `name`, `version`, `uri`."""
    decision: Mapping[str, Any] = field(default_factory=dict)
    """What the gate decided, in its artifact's form; empty if it did not."""
    outside: bool = False
    """Whether it failed for a cause outside of the run: the same command may succeed later."""

    @property
    def exit_status(self) -> int:
        """Return the exit status of the command."""
        return OUTSIDE if self.outside else EXIT[self.state]


def of_run(found: Sequence[Record]) -> RetrainOutcome:
    """Return how a finished run ended, from its records alone.

    A run of rounds has promoted the model of its last winner. A later round that wins nothing only
    ends the run.
    """
    rounds = [{r["stage"]: _facts(r) for r in each} for each in records.by_round(found)]
    won = [each for each in rounds if _decision(each).get("verdict") == "promote"]
    facts = won[-1] if won else rounds[0]
    decision = _decision(facts)
    version = facts.get("publish", {}).get("published")
    if failure := records.failure(found):
        return RetrainOutcome("failed", failure, version, decision)
    if not decision:
        return RetrainOutcome("failed", "the run has no decision of the gate: it is not complete")
    state, why = OF_VERDICT[decision["verdict"]], str(decision["why"])
    if won and len(rounds) > 1:
        why = f"round {len(won)}: {why}{_ended(rounds)}"
    if state != "promoted":
        return RetrainOutcome(state, why, version, decision)
    if version is None:
        return RetrainOutcome("failed", facts.get("publish", {}).get("why") or why, None, decision)
    if "promote" not in facts:
        advice = f"`moaa promote {version['name']} {version['version']}` puts it into production"
        why = f"{why}; the recipe has no field promote: {advice}"
        return RetrainOutcome("published", why, version, decision)
    promoted = facts["promote"]
    if promoted.get("promoted") is None:
        reason = promoted.get("why") or "the stage promote gives no reason"
        return RetrainOutcome("failed", f"not in production: {reason}", version, decision)
    return RetrainOutcome("promoted", why, version, decision)


def _ended(rounds: Sequence[Mapping[str, Any]]) -> str:
    """Return why the last round was not won; empty if it was."""
    last, number = _decision(rounds[-1]), len(rounds)
    if not last:
        return f"; round {number} has no decision"
    if last["verdict"] == "promote":
        return ""
    state = OF_VERDICT[last["verdict"]]
    return f"; round {number} is {state}, which ended the run: {last['why']}"


def _decision(facts: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what the gate of a round decided; {} if it did not."""
    return facts.get("gate", {}).get("decision") or {}


def _facts(record: Record) -> dict[str, Any]:
    return dict((record["manifest"] or {}).get("facts") or record.get("facts") or {})
