"""Direct preference optimization on best against worst; the reference is the SFT model (paper,
stage 2)."""

from __future__ import annotations

from moaa.recipe.schema import Dpo, Part
from moaa.stage import Context, stage
from moaa.stages.table import DPO
from moaa.stages.training import train


class DpoPart(Part):
    dpo: Dpo


@stage(DPO, part=lambda recipe: DpoPart(dpo=recipe.dpo))
def dpo(part: DpoPart, context: Context) -> None:
    train(
        context,
        "dpo",
        part.dpo,
        base=context.inputs["sft"].uri,
        revision=None,
        data=context.inputs["preferences"],
    )
