"""Direct preference optimization on best against worst (paper, stage 2)."""

from __future__ import annotations

from typing import Any

from pydantic import SerializerFunctionWrapHandler, model_serializer

from moaa.recipe.schema import Dpo, Part, Recipe
from moaa.stage import Context, stage
from moaa.stages.table import DPO
from moaa.stages.training import template_args, train
from moaa.weights import content


class DpoPart(Part):
    """What the model depends on, besides the SFT model and the pairs."""

    dpo: Dpo
    template_args: tuple[list[str], ...] = ()
    """The target's engine arguments that decide how its chat template renders."""

    @model_serializer(mode="wrap")
    def _without_nothing(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out the field if it is empty, so that fingerprints are the same as before it
        existed."""
        found: dict[str, Any] = dump(self)
        return found if self.template_args else {"dpo": found["dpo"]}


def part_of(recipe: Recipe) -> DpoPart:
    """Return the stage's part of the recipe."""
    return DpoPart(dpo=recipe.dpo, template_args=template_args(recipe))


def content_of(recipe: Recipe, *_: object) -> dict[str, str]:
    """Return the current content of the file with the target's chat template."""
    return content.of_template(recipe)


@stage(DPO, part=part_of, content=content_of, schema=2)
def dpo(part: DpoPart, context: Context) -> None:
    """Train the SFT model, which is also the reference. `moaa/train/run.py` does the training."""
    train(
        context,
        part.dpo,
        base=context.inputs["sft"].uri,
        revision=None,
        data=context.inputs["preferences"],
    )
