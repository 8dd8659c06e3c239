"""A labeller makes preference pairs (paper, stage 2): best against worst answer."""

from __future__ import annotations

from typing import Any

from moaa import judge, preference
from moaa.artifacts.table import Row
from moaa.chat.controls import Controls
from moaa.chat.message import Ask
from moaa.errors import RowRejected
from moaa.labellers import Labels
from moaa.mixture import CUT_REMEDY
from moaa.recipe.labelling import LabellerName
from moaa.recipe.method import CutAnswers
from moaa.recipe.schema import Judge, Recipe
from moaa.stage import Context, stage
from moaa.stages.judgements import report
from moaa.stages.labeller import Labelling, Thrift, gaps_of, labeller_of, labelling_of, score_facts
from moaa.stages.table import LABEL
from moaa.stages.texts import TextPart, control_texts, is_cut

ONLY_CUT = "prompts whose only whole answer is the worst"


class LabelPart(TextPart):
    """What the pairs depend on."""

    judge: Judge | None = None
    min_margin: float
    models: dict[str, Any]
    cut_answers: CutAnswers = "reject"
    labeller: LabellerName = "mixture"
    model: str | None = None


def part_of(recipe: Recipe) -> LabelPart:
    """Return the stage's part of the recipe."""
    label = recipe.label
    chosen = labelling_of(label, label.labeller)
    return LabelPart(
        judge=chosen.judge,
        min_margin=label.min_margin,
        models=recipe.identities(label.models_of(label.labeller)),
        cut_answers=label.cut_answers,
        control_texts=control_texts(recipe),
        labeller=chosen.labeller,
        model=chosen.model,
    )


@stage(LABEL, part=part_of, schema=4)
def label(part: LabelPart, context: Context) -> None:
    """Let the labeller rank the answers to each prompt; write the pair, and all verdicts."""
    chosen = Labelling(labeller=part.labeller, judge=part.judge, model=part.model)
    labeller = labeller_of(chosen, Controls(part.control_texts), context)

    def choosable(row: Row) -> list[int]:
        keep = part.cut_answers == "keep"
        return [i for i, sample in enumerate(row["samples"]) if keep or not is_cut(sample)]

    async def rank_answers(row: Row, ask: Ask) -> Row:
        if not choosable(row):
            raise RowRejected("every answer cut", f"{len(row['samples'])} answers: {CUT_REMEDY}")
        answers = [sample["text"] for sample in row["samples"]]
        labels = await labeller(row["id"], row["messages"], answers, ask, choosable(row))
        preference.pair(labels.ranking, choosable=choosable(row))
        return labels.to_json()

    verdicts = _Verdicts(context)
    for row, result in context.ask_each(
        context.inputs["samples"].rows(), rank_answers, models=part.models.keys(), gaps_of=gaps_of
    ):
        samples = row["samples"]
        labels = Labels.from_json(len(samples), result)
        verdicts.write(row["id"], labels)
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
    verdicts.report(part)


class _Verdicts:
    """Writes everything that the labeller said, and counts it."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tally = judge.Tally()
        self._scores: list[float] = []
        self._refused = 0
        self._thrift = Thrift()

    def write(self, id: str, labels: Labels) -> None:
        """Write the judgements or the scores of one prompt."""
        self._thrift.add(labels)
        self._tally.add(*labels.judgements)
        for judgement in labels.judgements:
            self._context.out.write({"id": id, **judgement.to_json()}, table="judgements")
        if labels.scores:
            self._context.out.write({"id": id, **labels.to_json()}, table="scores")
            self._scores += [score for score in labels.scores if score is not None]
            self._refused += len(labels.refused)
            events = self._context.ledger.events
            events.update(f"answers without a score: {each.reason}" for each in labels.refused)

    def report(self, part: LabelPart) -> None:
        """Add the counts to the facts and the ledger."""
        if part.judge:
            report(self._tally, part.judge, self._context)
            if part.judge.mode == "adaptive":
                self._context.facts["adaptive"] = self._thrift.facts(part.judge)
        else:
            self._context.facts.update(score_facts(part.labeller, self._scores, self._refused))
