"""Lines of a recipe's plan."""

from __future__ import annotations

from moaa import plan
from moaa.recipe import Recipe
from moaa.stages.table import stages


def planned(recipe: Recipe, stage: str) -> dict[str, plan.Line]:
    """The lines of a stage, by model."""
    return {line.model: line for line in plan.lines(recipe, stages()) if line.stage == stage}


def calls(recipe: Recipe, stage: str) -> int:
    """How many calls a stage makes, of all its models."""
    return sum(line.calls for line in planned(recipe, stage).values())
