"""What label and evaluate have in common."""

from __future__ import annotations

from moaa import templates
from moaa.judge import Tally, check_instructions
from moaa.recipe.schema import Judge
from moaa.stage import Context


def with_instructions(judge: Judge) -> Judge:
    """Return the judge with its instructions as text.

    A new text of moaa's own then changes the fingerprint of the stage. Raises RecipeError if an
    instruction lacks a placeholder.
    """
    check_instructions(judge)
    return judge.model_copy(
        update={
            "criteria_instruction": judge.criteria_instruction or templates.text("criteria"),
            "assess_instruction": judge.assess_instruction or templates.text("assess"),
            "verdict_instruction": judge.verdict_instruction or templates.text("verdict"),
        }
    )


def report(tally: Tally, judge: Judge, context: Context) -> None:
    """Put what the judgements say about the judge into the facts, what was missing into the
    ledger."""
    context.facts.update(tally.facts())
    context.ledger.events.update(
        {f"left out: {name} ({reason})": times for (name, reason), times in tally.left_out.items()}
    )
    if judge.verdict == "soft" and tally.hard:
        context.ledger.events["verdicts by the letter alone, without log-probabilities"] += (
            tally.hard
        )
