"""Supervised fine-tuning of the target on the mixture's answers (paper, stage 1)."""

from __future__ import annotations

from typing import Any

from moaa.recipe.schema import Part, Recipe, Sft
from moaa.stage import Work, stage
from moaa.stages.training import train


class SftPart(Part):
    sft: Sft
    model: dict[str, Any]
    """The weights that it begins with, however they are served."""


def part_of(recipe: Recipe) -> SftPart:
    return SftPart(
        sft=recipe.sft,
        model=recipe.models[recipe.target].model_dump(include={"source", "revision"}),
    )


@stage("sft", kind="model", part=part_of, unit="steps")
def sft(part: SftPart, work: Work) -> None:
    train(
        work,
        "sft",
        part.sft,
        base=part.model["source"],
        revision=part.model["revision"],
        data=work.inputs["data"],
    )


main = sft.main
