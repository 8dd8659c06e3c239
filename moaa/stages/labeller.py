"""The labeller of a stage, and its facts: for label, and for generate's `best`."""

from __future__ import annotations

from collections import Counter
from statistics import fmean, pstdev
from typing import Any

from moaa.artifacts.table import Row
from moaa.asking.rejections import Gaps, Loss
from moaa.chat.controls import Controls
from moaa.judge import rule_of
from moaa.labellers import ArmoRM, Chance, Heads, JudgeMixture, Labeller, Labels, RewardModel
from moaa.recipe import Judge
from moaa.recipe.labelling import Label, LabellerName
from moaa.recipe.schema import Part
from moaa.stage import Context
from moaa.stages import judgements
from moaa.weights.armorm import heads_of


class Labelling(Part):
    """What a labeller's verdicts depend on."""

    labeller: LabellerName
    judge: Judge | None = None
    model: str | None = None


def labelling_of(label: Label, labeller: LabellerName) -> Labelling:
    """Return the fields of the recipe's `label` that this labeller needs."""
    judge = label.judge_of(labeller)
    return Labelling(
        labeller=labeller,
        judge=judgements.with_instructions(judge) if judge else None,
        model=None if judge else label.model_of(labeller),
    )


def labeller_of(chosen: Labelling, controls: Controls, context: Context) -> Labeller:
    """Return the labeller that the recipe chose. Raises RecipeError if ArmoRM has no heads."""
    if chosen.judge:
        return JudgeMixture(chosen.judge, controls)
    if not chosen.model:
        return Chance()
    if chosen.labeller == "reward":
        return RewardModel(chosen.model, controls)
    heads = heads_of(context.recipe.models[chosen.model], context.store)
    return ArmoRM(chosen.model, Heads.read(heads), controls)


def gaps_of(row: Row) -> Gaps:
    """Return what is missing in a labelled row: orders that could not be judged, or answers without
    a score, each for its part of the row."""
    if "scores" not in row:
        return judgements.gaps_of(row)
    share = 1 / len(row["scores"])
    return Gaps(tuple(Loss(each["reason"], each["detail"], share) for each in row["refused"]))


def score_facts(labeller: LabellerName, scores: list[float], refused: int) -> dict[str, Any]:
    """Return what the scores say about the labeller: how many, their mean and deviation."""
    return {
        "labeller": labeller,
        "scores": {
            "n": len(scores),
            "refused": refused,
            "mean": fmean(scores) if scores else None,
            "sd": pstdev(scores) if scores else None,
        },
    }


class Thrift:
    """Counts what an adaptive judge asked for, and what it saved."""

    def __init__(self) -> None:
        self._orders: Counter[int] = Counter()
        """Pairs by the number of their orders that were asked."""
        self._calls: Counter[tuple[int, int, int]] = Counter()
        """Prompts by answers, compared pairs and asked orders."""
        self._sure: list[float] = []

    def add(self, labels: Labels) -> None:
        """Count the labels of one prompt."""
        if labels.sure is None:
            return
        n = len(labels.ranking.order)
        asked = [len(each.orders) + len(each.lost) for each in labels.judgements]
        self._orders.update(asked)
        self._orders[0] += n * (n - 1) // 2 - len(asked)
        self._calls[n, len(asked), sum(asked)] += 1
        self._sure.append(labels.sure)

    def facts(self, judge: Judge) -> dict[str, Any]:
        """Return the facts for the report.

        `calls_share`: the calls, as a share of the exhaustive judge's. `settled`: the share of
        prompts whose ends are certain enough at `confidence`; the others used up their budget (None
        without prompts). `pairs`: how many were compared in both orders, in one, in none.
        """
        used = whole = 0
        for (n, pairs, orders), prompts in self._calls.items():
            rule, every = rule_of(judge, n), n * (n - 1) // 2
            used += prompts * (pairs * rule.first + (orders - pairs) * rule.second)
            whole += prompts * every * (rule.first + rule.second)
        settled = sum(sure >= judge.confidence for sure in self._sure)
        return {
            "calls_share": used / whole if whole else None,
            "settled": settled / len(self._sure) if self._sure else None,
            "confidence": judge.confidence,
            "pairs": {"both": self._orders[2], "one": self._orders[1], "none": self._orders[0]},
        }
