"""Direct preference optimization on best against worst; the reference is the SFT model (paper,
stage 2)."""

from __future__ import annotations

from moaa.recipe.schema import Dpo, Part
from moaa.stage import Work, stage
from moaa.stages.training import train


class DpoPart(Part):
    dpo: Dpo


@stage("dpo", kind="model", part=lambda recipe: DpoPart(dpo=recipe.dpo), unit="steps")
def dpo(part: DpoPart, work: Work) -> None:
    train(
        work,
        "dpo",
        part.dpo,
        base=work.inputs["sft"].uri,
        revision=None,
        data=work.inputs["preferences"],
    )


main = dpo.main
