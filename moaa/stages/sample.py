"""The tuned model answers (paper, stage 2: five times a prompt at temperature 0.8)."""

from __future__ import annotations

from typing import Any

from moaa import preference
from moaa.chat.message import Ask, Message, opening
from moaa.recipe.schema import Part, Recipe, Sampling
from moaa.stage import Context, Row, stage
from moaa.stages.serving import tuned
from moaa.stages.table import SAMPLE

TOO_FEW = "fewer than two distinct answers"


class SamplePart(Part):
    """What the answers depend on."""

    sampling: Sampling
    target: str
    model: dict[str, Any]


def part_of(recipe: Recipe) -> SamplePart:
    """The stage's part of the recipe."""
    return SamplePart(
        sampling=recipe.sample.sampling,
        target=recipe.target,
        model=recipe.models[recipe.target].identity(),
    )


@stage(SAMPLE, part=part_of)
def sample(part: SamplePart, context: Context) -> None:
    """Write the distinct answers to each prompt, and how often each was given."""
    name, model = tuned(context.recipe.models[part.target], part.target, context.inputs["sft"])
    once = part.sampling.model_copy(update={"n": 1})

    async def answer(row: Row, ask: Ask) -> Row:
        first, *others = row["turns"]
        history = opening(row["system"], first)
        for question in others:  # the model also answers the earlier turns, once each (Eq. 3)
            earlier = await ask(name, history, once)
            history.append(Message(role="assistant", content=earlier.text))
            history.append(Message(role="user", content=question))
        reply = await ask(name, history, part.sampling)
        distinct = preference.distinct(
            [(choice.text, choice.finish_reason) for choice in reply.choices]
        )
        return {"messages": history, "samples": distinct}

    prompts = context.inputs["prompts"].rows("preference")
    for prompt, answered in context.ask_each(
        prompts, answer, models={name: model}, expected=[TOO_FEW]
    ):
        context.ledger.rows["merged answers"] += sum(s["count"] - 1 for s in answered["samples"])
        context.out.write({"id": prompt["id"], "source": prompt["source"], **answered})
