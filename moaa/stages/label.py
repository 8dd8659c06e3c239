"""The mixture of judges makes preference pairs (paper, stage 2): best against worst answer."""

from __future__ import annotations

from typing import Any

from moaa import judge, preference
from moaa.chat.message import Ask
from moaa.recipe.schema import Judge, Part, Recipe
from moaa.stage import Context, Row, stage
from moaa.stages.judging import report, with_instructions
from moaa.stages.table import LABEL


class LabelPart(Part):
    """What the pairs depend on."""

    judge: Judge
    min_margin: float
    models: dict[str, Any]


def part_of(recipe: Recipe) -> LabelPart:
    """The stage's part of the recipe."""
    chosen = recipe.label.judge
    return LabelPart(
        judge=with_instructions(chosen),
        min_margin=recipe.label.min_margin,
        models=recipe.identities(chosen.models),
    )


@stage(LABEL, part=part_of, schema=2)
def label(part: LabelPart, context: Context) -> None:
    """Judge all pairs of a prompt's answers in both orders; write the pair and every judgement."""

    async def compare_all(row: Row, ask: Ask) -> Row:
        answers = [sample["text"] for sample in row["samples"]]
        judgements = await judge.tournament(part.judge, row["messages"], answers, ask)
        return {"judgements": [judgement.to_json() for judgement in judgements]}

    tally = judge.Tally()
    for row, result in context.ask_each(
        context.inputs["samples"].rows(), compare_all, models=part.models.keys()
    ):
        judgements = [judge.Judgement.from_json(each) for each in result["judgements"]]
        for judgement in judgements:
            tally.add(judgement)
        ranking = preference.rank(len(row["samples"]), judgements)
        for each in result["judgements"]:
            context.out.write({"id": row["id"], **each}, table="judgements")
        pair = preference.pair(ranking, min_margin=part.min_margin)
        if pair is None:
            context.ledger.rows["unclear"] += 1
            continue
        context.ledger.rows["pairs"] += 1
        context.out.write(
            {
                "id": row["id"],
                "source": row["source"],
                "messages": row["messages"],
                "chosen": row["samples"][pair.chosen]["text"],
                "rejected": row["samples"][pair.rejected]["text"],
                "chosen_index": pair.chosen,
                "rejected_index": pair.rejected,
                "margin": pair.margin,
                "wins": ranking.wins,
            }
        )
    report(tally, part.judge, context)
