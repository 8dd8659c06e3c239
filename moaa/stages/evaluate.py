"""Win rates of the tuned models against the base, on held-out prompts, judged in both orders."""

from __future__ import annotations

from typing import Any

from moaa import judge, statistics
from moaa.chat.controls import Controls
from moaa.chat.message import Ask, opening
from moaa.concurrency import together
from moaa.errors import RowRejected
from moaa.recipe.schema import Judge, Recipe, Sampling
from moaa.stage import Context, Row, stage
from moaa.stages.judging import gaps_of, report, with_instructions
from moaa.stages.serving import tuned
from moaa.stages.table import EVALUATE
from moaa.stages.texts import TextPart, control_texts


class EvaluatePart(TextPart):
    """What the win rates depend on."""

    sampling: Sampling
    judge: Judge
    target: str
    models: dict[str, Any]


def part_of(recipe: Recipe) -> EvaluatePart:
    """The stage's part of the recipe."""
    chosen = recipe.evaluation_judge
    return EvaluatePart(
        sampling=recipe.evaluate.sampling,
        judge=with_instructions(chosen),
        target=recipe.target,
        models=recipe.identities(chosen.models | {recipe.target}),
        control_texts=control_texts(recipe),
    )


@stage(EVALUATE, part=part_of, schema=4)
def evaluate(part: EvaluatePart, context: Context) -> None:
    """Let base, SFT and DPO model answer; judge the two tuned ones against the base."""
    target = context.recipe.models[part.target]
    served = {name: context.recipe.models[name] for name in part.models}
    contestants = {"base": part.target}
    for name in ("sft", "dpo"):
        contestants[name], model = tuned(target, part.target, context.inputs[name])
        served[contestants[name]] = model

    controls = Controls(part.control_texts)

    async def answer_and_compare(row: Row, ask: Ask) -> Row:
        """The first turn of the prompt answered by each model; each tuned model's answer judged
        against the base's."""
        messages = opening(row["system"], row["turns"][0])
        replies = await together(
            ask(model, messages, part.sampling) for model in contestants.values()
        )
        answers = dict(
            zip(contestants, replies, strict=True)
        )  # an empty one is judged like any other, whoever gave it

        async def against_base(name: str) -> Row:
            a, b = answers[name].text, answers["base"].text
            judgement = (
                judge.tie()
                if a == b
                else await judge.compare(part.judge, messages, a, b, ask, controls=controls)
            )
            return {"model_a": name, "model_b": "base", **judgement.to_json()}

        judgements = await together(against_base(name) for name in contestants if name != "base")
        if all(each["p"] is None for each in judgements):
            lost = judgements[0]["lost"][0]
            raise RowRejected(lost["reason"], lost["detail"])
        return {
            "answers": [
                {
                    "messages": messages,
                    "model": name,
                    "text": reply.text,
                    "tokens": reply.completion_tokens,
                    "finish_reason": reply.choices[0].finish_reason,
                }
                for name, reply in answers.items()
            ],
            "judgements": judgements,
        }

    answers: list[Row] = []
    judgements: list[Row] = []
    for row, result in context.ask_each(
        context.inputs["prompts"].rows("evaluation"),
        answer_and_compare,
        models=served,
        gaps_of=gaps_of,
    ):
        for each in result["answers"]:
            context.out.write({"id": row["id"], **each}, table="answers")
        for each in result["judgements"]:
            context.out.write({"id": row["id"], **each}, table="judgements")
        answers += result["answers"]
        judgements += result["judgements"]
    tally = judge.Tally()
    for each in judgements:
        tally.add(judge.Judgement.from_json(each))
    report(tally, part.judge, context)
    context.facts.update(
        win_rates=statistics.win_rates(judgements), lengths=statistics.lengths(answers)
    )
