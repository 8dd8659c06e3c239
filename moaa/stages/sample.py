"""Answers of the tuned model itself (paper, stage 2: five a prompt at temperature 0.8); identical
ones are merged."""

from __future__ import annotations

from typing import Any

from moaa import preference
from moaa.chat.message import Ask, Message
from moaa.recipe.schema import Part, Recipe, Sampling
from moaa.stage import Row, Work, stage
from moaa.stages.serving import tuned

TOO_FEW = "fewer than two distinct answers"


class SamplePart(Part):
    sampling: Sampling
    target: str
    model: dict[str, Any]


def part_of(recipe: Recipe) -> SamplePart:
    return SamplePart(
        sampling=recipe.sample.sampling,
        target=recipe.target,
        model=recipe.models[recipe.target].identity(),
    )


@stage("sample", kind="samples", part=part_of, unit="prompts")
def sample(part: SamplePart, work: Work) -> None:
    name, model = tuned(work.models[part.target], part.target, work.inputs["sft"])
    once = part.sampling.model_copy(update={"n": 1})

    async def answer(row: Row, ask: Ask) -> Row:
        history: list[Message] = (
            [{"role": "system", "content": row["system"]}] if row["system"] else []
        )
        for question in row["turns"][
            :-1
        ]:  # earlier turns are the model's own too, one answer each (Eq 3)
            history.append({"role": "user", "content": question})
            history.append({"role": "assistant", "content": (await ask(name, history, once)).text})
        history.append({"role": "user", "content": row["turns"][-1]})
        reply = await ask(name, history, part.sampling)
        distinct = preference.distinct(
            [(choice.text, choice.finish_reason) for choice in reply.choices]
        )
        return {"messages": history, "samples": distinct}

    prompts = work.inputs["prompts"].rows("preference")
    for prompt, answered in work.ask_each(
        prompts, answer, models={name: model}, expected=[TOO_FEW]
    ):
        work.ledger.rows["merged answers"] += sum(s["count"] - 1 for s in answered["samples"])
        work.out.write({"id": prompt["id"], "source": prompt["source"], **answered})


main = sample.main
