"""The mixture writes the SFT data (paper, stage 1): a row a conversation, with its proposals."""

from __future__ import annotations

from collections import Counter
from typing import Any

from moaa import mixture, templates
from moaa.asking.rejections import Gaps, absent
from moaa.chat.controls import Controls
from moaa.chat.message import Ask
from moaa.recipe.method import CutAnswers
from moaa.recipe.schema import Mixture, Recipe
from moaa.stage import Context, Row, stage
from moaa.stages.table import GENERATE
from moaa.stages.texts import NEUTRALISED, TextPart, control_texts


class GeneratePart(TextPart):
    """What the data depends on. The instruction is a text, so that a new default is a new part."""

    mixture: Mixture
    models: dict[str, Any]
    cut_answers: CutAnswers = "reject"


def part_of(recipe: Recipe) -> GeneratePart:
    """The stage's part of the recipe."""
    chosen = recipe.generate.mixture
    instruction = chosen.instruction or templates.text("aggregate")
    return GeneratePart(
        mixture=chosen.model_copy(update={"instruction": instruction}),
        models=recipe.identities(chosen.models),
        cut_answers=recipe.generate.cut_answers,
        control_texts=control_texts(recipe),
    )


def gaps_of(conversation: Row) -> Gaps:
    """The proposers that gave nothing to this conversation."""
    turns = conversation["turns"]
    spoke = (proposal["name"] for turn in turns for proposal in turn["proposals"])
    return Gaps(absent=absent(spoke, (gone for turn in turns for gone in turn["left_out"])))


@stage(GENERATE, part=part_of, schema=4)
def generate(part: GeneratePart, context: Context) -> None:
    """Write every conversation that the mixture answers; its events count what is missing, cut or
    neutralised."""
    controls = Controls(part.control_texts)

    async def answer(row: Row, ask: Ask) -> Row:
        conversation = await mixture.converse(
            part.mixture,
            row["system"],
            row["turns"],
            ask,
            cut_answers=part.cut_answers,
            controls=controls,
        )
        return conversation.to_json()

    prompts = context.inputs["prompts"].rows("sft")
    for prompt, conversation in context.ask_each(
        prompts, answer, models=part.models.keys(), gaps_of=gaps_of
    ):
        for turn in conversation["turns"]:
            context.ledger.rows["turns"] += 1
            context.ledger.rows["cut turns"] += turn["finish_reason"] == "length"
            context.ledger.events.update(events(turn, controls))
        context.out.write({"id": prompt["id"], "source": prompt["source"], **conversation})


def events(turn: Row, controls: Controls) -> Counter[str]:
    """What did not go as planned in a turn."""
    found = Counter(f"left out: {gone['name']} ({gone['reason']})" for gone in turn["left_out"])
    for proposal in turn["proposals"]:
        found[f"cut at max_tokens: {proposal['name']}"] += proposal["finish_reason"] == "length"
    texts = [turn["answer"], *(proposal["text"] for proposal in turn["proposals"])]
    found[NEUTRALISED] = sum(controls.count(text) > 0 for text in texts)
    return +found
