"""The mixture writes the SFT data (paper, stage 1): a row a conversation, with its proposals."""

from __future__ import annotations

from typing import Any

from moaa import mixture, templates
from moaa.asking.rejections import Gaps, absent
from moaa.chat.message import Ask
from moaa.recipe.schema import Mixture, Part, Recipe
from moaa.stage import Context, Row, stage
from moaa.stages.table import GENERATE


class GeneratePart(Part):
    """What the data depends on. The instruction is a text, so that a new default is a new part."""

    mixture: Mixture
    models: dict[str, Any]


def part_of(recipe: Recipe) -> GeneratePart:
    """The stage's part of the recipe."""
    chosen = recipe.generate.mixture
    instruction = chosen.instruction or templates.text("aggregate")
    return GeneratePart(
        mixture=chosen.model_copy(update={"instruction": instruction}),
        models=recipe.identities(chosen.models),
    )


def gaps_of(conversation: Row) -> Gaps:
    """The proposers that gave nothing to this conversation."""
    turns = conversation["turns"]
    spoke = (proposal["name"] for turn in turns for proposal in turn["proposals"])
    return Gaps(absent=absent(spoke, (gone for turn in turns for gone in turn["left_out"])))


@stage(GENERATE, part=part_of, schema=2)
def generate(part: GeneratePart, context: Context) -> None:
    """Write every conversation that the mixture answers; its events count the missing proposals."""

    async def answer(row: Row, ask: Ask) -> Row:
        conversation = await mixture.converse(part.mixture, row["system"], row["turns"], ask)
        return conversation.to_json()

    prompts = context.inputs["prompts"].rows("sft")
    for prompt, conversation in context.ask_each(
        prompts, answer, models=part.models.keys(), gaps_of=gaps_of
    ):
        for turn in conversation["turns"]:
            context.ledger.rows["turns"] += 1
            context.ledger.events.update(
                f"left out: {gone['name']} ({gone['reason']})" for gone in turn["left_out"]
            )
        context.out.write({"id": prompt["id"], "source": prompt["source"], **conversation})
