"""A labeller makes preference pairs (paper, stage 2): best against worst answer."""

from __future__ import annotations

from typing import Any

from moaa import judge, preference
from moaa.chat.controls import Controls
from moaa.chat.message import Ask
from moaa.errors import RowRejected
from moaa.labellers import JudgeMixture, Labels
from moaa.mixture import CUT_REMEDY
from moaa.recipe.method import CutAnswers
from moaa.recipe.schema import Judge, Recipe
from moaa.stage import Context, Row, stage
from moaa.stages.judging import gaps_of, report, with_instructions
from moaa.stages.table import LABEL
from moaa.stages.texts import TextPart, control_texts, is_cut

ONLY_CUT = "prompts whose only whole answer is the worst"


class LabelPart(TextPart):
    """What the pairs depend on."""

    judge: Judge
    min_margin: float
    models: dict[str, Any]
    cut_answers: CutAnswers = "reject"


def part_of(recipe: Recipe) -> LabelPart:
    """The stage's part of the recipe."""
    chosen = recipe.label.judge
    return LabelPart(
        judge=with_instructions(chosen),
        min_margin=recipe.label.min_margin,
        models=recipe.identities(chosen.models),
        cut_answers=recipe.label.cut_answers,
        control_texts=control_texts(recipe),
    )


@stage(LABEL, part=part_of, schema=3)
def label(part: LabelPart, context: Context) -> None:
    """Let the labeller rank the answers to each prompt; write the pair and every judgement."""
    labeller = JudgeMixture(part.judge, Controls(part.control_texts))

    def choosable(row: Row) -> list[int]:
        keep = part.cut_answers == "keep"
        return [i for i, sample in enumerate(row["samples"]) if keep or not is_cut(sample)]

    async def rank_answers(row: Row, ask: Ask) -> Row:
        if not choosable(row):
            raise RowRejected("every answer cut", f"{len(row['samples'])} answers: {CUT_REMEDY}")
        answers = [sample["text"] for sample in row["samples"]]
        labels = await labeller(row["id"], row["messages"], answers, ask)
        preference.pair(labels.ranking, choosable=choosable(row))
        return labels.to_json()

    tally = judge.Tally()
    for row, result in context.ask_each(
        context.inputs["samples"].rows(), rank_answers, models=part.models.keys(), gaps_of=gaps_of
    ):
        samples = row["samples"]
        labels = Labels.from_json(len(samples), result)
        for judgement in labels.judgements:
            tally.add(judgement)
            context.out.write({"id": row["id"], **judgement.to_json()}, table="judgements")
        ranking = labels.ranking
        pair = preference.pair(ranking, part.min_margin, choosable(row))
        if pair is None:
            context.ledger.rows["unclear"] += 1
            if choosable(row) == [ranking.order[-1]]:
                context.ledger.events[ONLY_CUT] += 1
            continue
        context.ledger.rows["pairs"] += 1
        context.out.write(
            {
                "id": row["id"],
                "source": row["source"],
                "messages": row["messages"],
                "chosen": samples[pair.chosen]["text"],
                "rejected": samples[pair.rejected]["text"],
                "chosen_cut": is_cut(samples[pair.chosen]),
                "rejected_cut": is_cut(samples[pair.rejected]),
                "chosen_index": pair.chosen,
                "rejected_index": pair.rejected,
                "margin": pair.margin,
                "wins": ranking.wins,
            }
        )
    report(tally, part.judge, context)
