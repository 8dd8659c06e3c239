"""Pairwise win rates of the tuned models against the base, on held-out prompts, judged in both
orders."""

from __future__ import annotations

import asyncio
from typing import Any

from moaa import judge, statistics
from moaa.chat.message import Ask, Message
from moaa.recipe.schema import Judge, Part, Recipe, Sampling
from moaa.stage import Row, Work, stage
from moaa.stages.judging import report, with_instructions
from moaa.stages.serving import tuned


class EvaluatePart(Part):
    sampling: Sampling
    judge: Judge
    target: str
    models: dict[str, Any]


def part_of(recipe: Recipe) -> EvaluatePart:
    chosen = recipe.evaluation_judge
    return EvaluatePart(
        sampling=recipe.evaluate.sampling,
        judge=with_instructions(chosen),
        target=recipe.target,
        models=recipe.identities(chosen.models | {recipe.target}),
    )


@stage("evaluate", kind="scores", schema=2, part=part_of, unit="prompts")
def evaluate(part: EvaluatePart, work: Work) -> None:
    target = work.models[part.target]
    served = {name: work.models[name] for name in part.models}
    contestants = {"base": part.target}
    for name in ("sft", "dpo"):
        contestants[name], model = tuned(target, part.target, work.inputs[name])
        served[contestants[name]] = model

    async def answer_and_compare(row: Row, ask: Ask) -> Row:
        """The first turn of the prompt answered by each model; each tuned model's answer judged
        against the base's."""
        messages: list[Message] = (
            [{"role": "system", "content": row["system"]}] if row["system"] else []
        )
        messages.append({"role": "user", "content": row["turns"][0]})
        replies = await asyncio.gather(
            *(ask(model, messages, part.sampling) for model in contestants.values())
        )
        answers = dict(
            zip(contestants, replies, strict=True)
        )  # an empty one is judged like any other, whoever gave it

        async def against_base(name: str) -> Row:
            a, b = answers[name].text, answers["base"].text
            judgement = (
                judge.tie() if a == b else await judge.compare(part.judge, messages, a, b, ask)
            )
            return {"model_a": name, "model_b": "base", **judgement.to_json()}

        judgements = await asyncio.gather(
            *(against_base(name) for name in contestants if name != "base")
        )
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
    for row, result in work.ask_each(
        work.inputs["prompts"].rows("evaluation"), answer_and_compare, models=served
    ):
        for each in result["answers"]:
            work.out.write({"id": row["id"], **each}, table="answers")
        for each in result["judgements"]:
            work.out.write({"id": row["id"], **each}, table="judgements")
        answers += result["answers"]
        judgements += result["judgements"]
    tally = judge.Tally()
    for each in judgements:
        tally.add(judge.Judgement.from_json(each))
    report(tally, part.judge, work)
    work.facts.update(
        win_rates=statistics.win_rates(judgements), lengths=statistics.lengths(answers)
    )


main = evaluate.main
