"""Supervised fine-tuning of the target on the mixture's answers (paper, stage 1)."""

from __future__ import annotations

from typing import Any

from moaa.recipe.schema import Part, Recipe, Sft
from moaa.stage import Context, stage
from moaa.stages.table import SFT
from moaa.stages.training import template_args, train
from moaa.store import Store
from moaa.weights import content


class SftPart(Part):
    """What the model depends on."""

    sft: Sft
    model: dict[str, Any]
    """The weights that training starts from, however they are served; and the engine arguments that
    decide how its chat template renders, if any."""


def part_of(recipe: Recipe) -> SftPart:
    """Return the stage's part of the recipe."""
    model = recipe.models[recipe.target].model_dump(include={"source", "revision"})
    args = template_args(recipe)
    return SftPart(sft=recipe.sft, model=model | ({"template_args": args} if args else {}))


def content_of(recipe: Recipe, store: Store, *_: object) -> dict[str, str]:
    """Return the current content of the target's source, and of the file with its chat template."""
    held = content.of_source(recipe.models[recipe.target], store)
    return ({f"models.{recipe.target}": held} if held else {}) | content.of_template(recipe)


@stage(SFT, part=part_of, content=content_of, schema=2)
def sft(part: SftPart, context: Context) -> None:
    """Train the target on the data. `moaa/train/run.py` does the training."""
    train(
        context,
        part.sft,
        base=part.model["source"],
        revision=context.recipe.models[context.recipe.target].revision,
        data=context.inputs["data"],
    )
