"""Direct preference optimization on best against worst (paper, stage 2)."""

from __future__ import annotations

from moaa.recipe.schema import Dpo, Part
from moaa.stage import Context, stage
from moaa.stages.table import DPO
from moaa.stages.training import train


class DpoPart(Part):
    """What the model depends on, besides the SFT model and the pairs."""

    dpo: Dpo


@stage(DPO, part=lambda recipe: DpoPart(dpo=recipe.dpo))
def dpo(part: DpoPart, context: Context) -> None:
    """Train the SFT model, which is the reference too. `moaa/train/run.py` is what trains."""
    train(
        context,
        part.dpo,
        base=context.inputs["sft"].uri,
        revision=None,
        data=context.inputs["preferences"],
    )
