"""The recipe's fields about the gate: what a trained model must prove before it is published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moaa.recipe.document import Part


class Allowed(Part):
    """How much more often than the other model's the candidate's answers may be bad, as shares:
    0.02 is two points."""

    truncated: float = Field(0.05, ge=0, le=1)
    """Answers cut at max_tokens: without its end an answer helps nobody."""
    empty: float = Field(0.01, ge=0, le=1)
    """Answers without any text."""
    repeated: float = Field(0.02, ge=0, le=1)
    """Answers that repeat one text again and again, as a model does that was trained too far."""
    refused: float = Field(0.05, ge=0, le=1)
    """Answers that start with a refusal, to prompts that the other model answers."""


class Gate(Part):
    """The rules that a candidate must pass. Each is tested at 95 % on one side: `pass`, `fail` or
    `undecided`. Only a candidate that passes all of them is promoted."""

    candidate: Literal["dpo", "sft"] = "dpo"
    """The model of the run that is judged."""
    against: str | None = None
    """The contestant that it must beat. Default: `production` if it was measured, else `base`."""
    min_prompts: int = Field(30, ge=2)
    """With fewer judged prompts nothing is promoted, because the intervals would be wrong."""
    margin: float = Field(0.0, ge=-0.5, lt=0.5)
    """Wins: the lower bound of the mean probability to win must be above 0.5 plus this margin. 0:
    any difference that is real is enough. Below 0 the candidate may be a little worse, also at
    equal length."""
    floor: float = Field(0.03, ge=0, le=1)
    """Reasoning: the mean difference over all benchmarks must not be below minus this. Five
    benchmarks can prove about 3 points."""
    benchmark_floor: float = Field(0.05, ge=0, le=1)
    """A single benchmark fails the candidate if it is proven to be worse by more than this. One
    benchmark cannot prove less: it has too few questions."""
    max_length_ratio: float = Field(1.25, gt=0)
    """Length: the longest allowed ratio of geometric mean lengths. Judges like long answers, and
    users pay for them."""
    more: Allowed = Allowed()
    """Bad answers: by how much their shares may grow."""
    min_consistency: float = Field(0.6, ge=0, le=1)
    """Judge: the share of pairs whose two orders must prefer the same answer. Below it, verdicts
    depend more on positions than on answers."""
    max_lost_verdicts: float = Field(0.02, ge=0, le=1)
    """Judge: the share of pairs that it may fail to judge."""
    same_judge: Literal["name", "refuse"] = "name"
    """If the judge also made the preferences that the candidate was trained on: only mention it in
    the decision, or refuse the candidate."""
