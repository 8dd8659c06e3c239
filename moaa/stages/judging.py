"""What the two stages that judge have in common."""

from __future__ import annotations

from moaa import templates
from moaa.recipe.schema import Judge


def with_instructions(judge: Judge) -> Judge:
    """The judge with its instructions as text, so that a changed built-in text changes the stage's fingerprint."""
    return judge.model_copy(
        update={
            "criteria_instruction": judge.criteria_instruction or templates.text("criteria"),
            "assess_instruction": judge.assess_instruction or templates.text("assess"),
            "verdict_instruction": judge.verdict_instruction or templates.text("verdict"),
        }
    )
