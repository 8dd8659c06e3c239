"""The recipe's fields about the gate: what a trained model must show before it is published."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from moaa.recipe.document import Part


class Allowed(Part):
    """How much more often the candidate's answers may be bad than the other model's: shares, 0.02
    is two points."""

    truncated: float = Field(0.05, ge=0, le=1)
    """Cut at max_tokens: an answer without its end helps nobody."""
    empty: float = Field(0.01, ge=0, le=1)
    """Without any text."""
    repeated: float = Field(0.02, ge=0, le=1)
    """One text over and over: what a model does that was trained too far."""
    refused: float = Field(0.05, ge=0, le=1)
    """Begun as a refusal, to prompts that the other model answers."""


class Gate(Part):
    """The rules that a candidate must pass, each tested at 95 % on one side: `pass`, `fail` or
    `undecided`. Only a candidate that passes all is promoted."""

    candidate: Literal["dpo", "sft"] = "dpo"
    """The model of the run that is judged."""
    against: str | None = None
    """The contestant that it must beat. Default: `production` if it was measured, else `base`."""
    min_prompts: int = Field(30, ge=2)
    """With fewer judged prompts nothing is promoted: the intervals do not hold for so few."""
    margin: float = Field(0.0, ge=-0.5, lt=0.5)
    """Wins: the lower bound of the mean probability to win must be above 0.5 plus this. 0: a
    difference that is real, however small, is a reason to change. Below 0 it may be a little worse,
    at equal length too."""
    floor: float = Field(0.03, ge=0, le=1)
    """Reasoning: the mean difference over all benchmarks must not be below minus this. 3 points is
    about what five benchmarks can prove."""
    benchmark_floor: float = Field(0.05, ge=0, le=1)
    """One benchmark that is proven to be worse by more than this fails the candidate. Alone it
    cannot prove more: it has too few questions."""
    max_length_ratio: float = Field(1.25, gt=0)
    """Length: answers may be so much longer, as the ratio of geometric means. Judges like long
    answers, users pay for them."""
    more: Allowed = Allowed()
    """Bad answers: by how much their shares may grow."""
    min_consistency: float = Field(0.6, ge=0, le=1)
    """Judge: share of the pairs whose two orders prefer the same answer. Below it, the verdicts say
    more about positions than about answers."""
    max_lost_verdicts: float = Field(0.02, ge=0, le=1)
    """Judge: share of the pairs that it could not judge."""
    same_judge: Literal["name", "refuse"] = "name"
    """If the judge also made the preferences that the candidate was trained on: name it in the
    decision, or refuse the candidate."""
