"""SFT data written by the mixture (paper, stage 1): one row a conversation, its proposals beside
it."""

from __future__ import annotations

from typing import Any

from moaa import mixture, templates
from moaa.chat.message import Ask
from moaa.recipe.schema import Mixture, Part, Recipe
from moaa.stage import Context, Row, stage
from moaa.stages.table import GENERATE


class GeneratePart(Part):
    mixture: Mixture
    models: dict[str, Any]


def part_of(recipe: Recipe) -> GeneratePart:
    chosen = recipe.generate.mixture
    instruction = chosen.instruction or templates.text("aggregate")
    return GeneratePart(
        mixture=chosen.model_copy(update={"instruction": instruction}),
        models=recipe.identities(chosen.models),
    )


@stage(GENERATE, part=part_of, schema=2)
def generate(part: GeneratePart, context: Context) -> None:
    async def answer(row: Row, ask: Ask) -> Row:
        conversation = await mixture.converse(part.mixture, row["system"], row["turns"], ask)
        return conversation.to_json()

    prompts = context.inputs["prompts"].rows("sft")
    for prompt, conversation in context.ask_each(prompts, answer, models=part.models.keys()):
        for turn in conversation["turns"]:
            context.ledger.rows["turns"] += 1
            context.ledger.events.update(
                f"left out: {gone['name']} ({gone['reason']})" for gone in turn["left_out"]
            )
        context.out.write({"id": prompt["id"], "source": prompt["source"], **conversation})
