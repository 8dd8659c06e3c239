"""The decision that follows from all rules together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Literal

from moaa.gate.evidence import Evidence
from moaa.gate.rules import RuleResult, findings
from moaa.recipe.gate import Gate
from moaa.statistics import detectable_difference

Verdict = Literal["promote", "refuse", "undecided"]

VERDICT_SD: Final = 0.4
"""The standard deviation of a soft verdict on a prompt, measured on published ones (0.38-0.42)."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the gate decided, and why."""

    verdict: Verdict
    candidate: str
    against: str
    findings: list[RuleResult]
    power: str
    """A sentence: the smallest difference that this number of prompts can show."""

    @property
    def why(self) -> str:
        """Return the reason in one sentence."""
        if self.verdict == "promote":
            return f"{self.candidate} passed all {len(self.findings)} rules against {self.against}"
        outcome = "fail" if self.verdict == "refuse" else "undecided"
        reasons = [
            f"{each.rule} ({each.about})" for each in self.findings if each.outcome == outcome
        ]
        return f"{self.candidate} against {self.against}: " + "; ".join(reasons)

    def to_json(self) -> dict[str, Any]:
        """Return the decision as its file has it."""
        return {
            "verdict": self.verdict,
            "candidate": self.candidate,
            "against": self.against,
            "why": self.why,
            "power": self.power,
            "findings": [each.to_json() for each in self.findings],
        }


def decide(gate: Gate, evidence: Evidence) -> Decision:
    """Return the decision. One failed rule refuses;
    otherwise one undecided rule leaves it undecided."""
    found = findings(gate, evidence)
    outcomes = {each.outcome for each in found}
    verdict: Verdict = "promote"
    if "fail" in outcomes:
        verdict = "refuse"
    elif "undecided" in outcomes:
        verdict = "undecided"
    return Decision(verdict, evidence.candidate, evidence.other, found, power(len(evidence.wins)))


def power(prompts: int) -> str:
    """Return in a sentence what a comparison on this number of prompts can show."""
    if prompts < 2:
        return "Without judged prompts this gate can see nothing."
    points = 100 * detectable_difference(prompts, VERDICT_SD)
    return (
        f"With {prompts:,} prompts this gate can see a difference of {points:.1f} points "
        "(80 % power, 95 % confidence)."
    )
