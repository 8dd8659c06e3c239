"""What an evaluation can prove, computed before it runs: each benchmark's smallest difference."""

from __future__ import annotations

import math
from typing import Any, Final

from moaa.benchmarks.benchmark import Benchmark
from moaa.benchmarks.head_to_head import HeadToHead
from moaa.benchmarks.reasoning import Reasons
from moaa.benchmarks.table import chosen
from moaa.gate.decision import VERDICT_SD, power
from moaa.plan.calls import sizes
from moaa.recipe.gate import Gate
from moaa.recipe.schema import Recipe
from moaa.statistics import WIN_SD, detectable_difference, paired_sd, power_of

CHANGED: Final = 0.1
"""The share of items on which two models, or two judges, are assumed to differ."""


def shown(recipe: Recipe) -> list[str]:
    """Return one sentence for each benchmark of the recipe, at 80 % power and 95 % confidence."""
    found = [sentence for benchmark in chosen(recipe) if (sentence := _shown(benchmark, recipe))]
    if recipe.gate:
        prompts = round(sum(prompts for _, prompts, _ in sizes(recipe, "evaluation")))
        found.append(f"Gate: {power(prompts)}")
        found += _mean_kept(recipe, recipe.gate.floor)
    return found


def _mean_kept(recipe: Recipe, floor: float) -> list[str]:
    """Return what the gate's rule on the mean of all benchmarks of reasoning can prove."""
    counts = [_items(each, recipe) for each in chosen(recipe) if isinstance(each, Reasons)]
    if not counts:
        return []
    error = paired_sd(CHANGED) * math.sqrt(sum(1 / n for n in counts)) / len(counts)
    passed = power_of(1, error, floor, one_sided=True)
    return [
        f"Gate: reasoning, the mean of {len(counts)} benchmarks: a floor of {100 * floor:g} points "
        f"is proven for an equal model in {passed:.0%} of cases"
    ]


def _shown(benchmark: Benchmark[Any], recipe: Recipe) -> str:
    n = _items(benchmark, recipe)
    if n < 2:
        return ""
    if isinstance(benchmark, Reasons):
        sd = paired_sd(CHANGED)
        margin = 100 * detectable_difference(n, sd, one_sided=True)
        floor = (recipe.gate or Gate()).floor
        passed = power_of(n, sd, floor, one_sided=True)
        return (
            f"{benchmark.title}: {n:,} questions prove that a model is not worse by more than "
            f"{margin:.1f} points, if it answers {CHANGED:.0%} of them otherwise; a floor of "
            f"{100 * floor:g} points is proven for an equal model in {passed:.0%} of cases"
        )
    if benchmark.measures == "judges":
        points = 100 * detectable_difference(n, paired_sd(CHANGED))
        return (
            f"{benchmark.title}: {n:,} questions tell judges apart that are {points:.1f} points "
            f"apart, if they differ on {CHANGED:.0%} of them"
        )
    # Head to head counts wins; AlpacaEval and Arena-Hard take the mean of what the judge says.
    sd = WIN_SD if isinstance(benchmark, HeadToHead) else VERDICT_SD
    rate = 50 + 100 * detectable_difference(n, sd)
    if rate >= 100:
        return f"{benchmark.title}: {n:,} prompts show no difference, however large"
    return f"{benchmark.title}: {n:,} prompts show a win rate of {rate:.1f} % or more to be a win"


def _items(benchmark: Benchmark[Any], recipe: Recipe) -> int:
    """Return how many items it has; 0 if it is not measured by shares (MT-Bench rates)."""
    if isinstance(benchmark, HeadToHead):
        return sum(prompts for _, prompts, _ in sizes(recipe, "evaluation"))
    return benchmark.question_count(getattr(benchmark, "count", 0))
