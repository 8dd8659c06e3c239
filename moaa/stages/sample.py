"""The tuned model answers (paper, stage 2: five times a prompt at temperature 0.8)."""

from __future__ import annotations

from typing import Any

from moaa import preference
from moaa.artifacts.table import Row
from moaa.chat.controls import Controls
from moaa.chat.message import Ask, Message, opening
from moaa.errors import RowRejected
from moaa.recipe.schema import Recipe, Sampling
from moaa.stage import Context, stage
from moaa.stages.serving import tuned
from moaa.stages.table import SAMPLE
from moaa.stages.texts import TextPart, control_texts, is_cut

TOO_FEW = "fewer than two distinct answers"


class SamplePart(TextPart):
    """What the answers depend on."""

    sampling: Sampling
    target: str
    model: dict[str, Any]


def part_of(recipe: Recipe) -> SamplePart:
    """Return the stage's part of the recipe."""
    return SamplePart(
        sampling=recipe.sample.sampling,
        target=recipe.target,
        model=recipe.models[recipe.target].identity(),
        control_texts=control_texts(recipe),
    )


@stage(SAMPLE, part=part_of, schema=2)
def sample(part: SamplePart, context: Context) -> None:
    """Write the distinct answers to each prompt, and how many times each was given."""
    name, model = tuned(context.recipe.models[part.target], part.target, context.inputs["sft"])
    once = part.sampling.model_copy(update={"n": 1})
    controls = Controls(part.control_texts)

    async def answer(row: Row, ask: Ask) -> Row:
        first, *others = row["turns"]
        messages = opening(row["system"], first)
        history = list(messages)
        cut_turns = 0
        for question in others:  # the model also answers the earlier turns, once each (Eq. 3)
            (earlier,) = (await ask(name, history, once)).choices[:1]
            if earlier.missing:
                raise RowRejected(f"earlier answer: {earlier.missing}", f"before {question[:80]!r}")
            cut_turns += earlier.cut
            for each, text in (
                (messages, earlier.text),
                (history, controls.neutralised(earlier.text)),
            ):
                each.append(Message(role="assistant", content=text))
                each.append(Message(role="user", content=question))
        reply = await ask(name, history, part.sampling)
        distinct = preference.distinct(
            [(choice.text, choice.finish_reason) for choice in reply.choices]
        )
        return {"messages": messages, "samples": distinct, "cut_turns": cut_turns}

    prompts = context.inputs["prompts"].rows("preference")
    for prompt, answered in context.ask_each(
        prompts, answer, models={name: model}, expected=[TOO_FEW]
    ):
        rows, samples = context.ledger.rows, answered["samples"]
        rows["merged answers"] += sum(each["count"] - 1 for each in samples)
        rows["answers"] += sum(each["count"] for each in samples)
        rows["cut answers"] += sum(each["count"] for each in samples if is_cut(each))
        rows["cut turns"] += answered["cut_turns"]
        context.out.write({"id": prompt["id"], "source": prompt["source"], **answered})
