"""RewardBench 2 under a limit: a right answer must still win against each of three wrong ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from moaa import plan
from moaa.benchmarks import Item, Played, ties
from moaa.benchmarks.reward_bench import PAIRS, QUESTIONS, RewardBench
from moaa.stages.table import stages
from moaa.statistics import resample
from tests.support.benchmarked import one, recipe_of

SIZES = {"Factuality": 475, "Precise IF": 160, "Math": 183, "Safety": 450, "Focus": 495}
"""The prompts of RewardBench 2; 51 questions with ties come on top, each as two prompts."""
NAMED = "evaluate.benchmarks.reward_bench"


@pytest.fixture(autouse=True)
def _few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ties, "resample", partial(resample, resamples=20))


def reward_bench(version: str, limit: int | None) -> RewardBench:
    recipe = recipe_of(f"{NAMED}={{version: {version}, limit: {limit or 'null'}, injected: 0}}")
    return RewardBench(recipe.evaluate.benchmarks.reward_bench, recipe)


def best_of_four() -> list[dict[str, Any]]:
    """Rows of the published sizes, without any content."""
    rows = [
        {"id": str(number), "subset": subset, "chosen": ["good"], "rejected": ["x", "y", "z"]}
        for subset, size in SIZES.items()
        for number in range(size)
    ]
    tied = {"subset": "Ties", "rejected": ["x"] * 4}
    for kind, right in (("ref", 1), ("tied", 4)):
        rows += [
            {"id": f"{kind}:{number}", "chosen": ["good"] * right, **tied} for number in range(51)
        ]
    return [{"prompt": "Which?", **row} for row in rows]


def scores(benchmark: RewardBench, better: Callable[[Item], float]) -> Any:
    """The scores of a judge; `better`: how likely the right answer is better, in both orders."""
    items = benchmark.limited(benchmark.items(best_of_four()))
    rows = {}
    for item in items:
        p = better(item) if item.given["better"] == "a" else 1 - better(item)
        rows[item.id] = {"p": p, "p_ab": p, "p_ba": p, "orders": [], "injected": None}
    return benchmark.scores(Played(items, ["judge"], {}, {("judge",): rows}))


@pytest.mark.parametrize("limit", [1, 300, 1000, None])
def test_a_limit_counts_prompts_with_all_of_their_pairs(limit: int | None) -> None:
    benchmark = reward_bench("v2", limit)
    items = benchmark.limited(benchmark.items(best_of_four()))
    pairs = Counter(item.given["prompt"] for item in items)
    tied = {name for name in pairs if name.startswith("Ties/")}
    assert {n for name, n in pairs.items() if name not in tied} <= {3}
    assert {name.partition(":")[2] for name in tied if "/ref:" in name} == {
        name.partition(":")[2] for name in tied if "/tied:" in name
    }
    assert len(pairs) - len(tied) / 2 == (limit or QUESTIONS["v2"])


@pytest.mark.parametrize("limit", [300, 1000])
def test_a_perfect_judge_is_perfect_under_a_limit(limit: int) -> None:
    found = scores(reward_bench("v2", limit), lambda item: 0.9)
    for section in SIZES:
        assert one(found, "accuracy", section).estimate.value == 1
    assert one(found, "accuracy", "Ties").estimate.value == pytest.approx(sum(ties.WEIGHTS))


def test_a_coin_finds_the_best_of_four_once_in_eight_times() -> None:
    coin = random.Random(0)
    found = scores(reward_bench("v2", 1000), lambda item: coin.choice((0.1, 0.9)))
    rates = [one(found, "accuracy", section).estimate for section in SIZES]
    right = sum(rate.value * rate.n for rate in rates)
    assert right / sum(rate.n for rate in rates) == pytest.approx(1 / 8, abs=0.03)


@pytest.mark.parametrize(("version", "limit"), [("v1", 300), ("v2", 300), ("v2", None)])
def test_the_plan_counts_the_pairs_of_the_prompts(version: str, limit: int | None) -> None:
    settings = f"version: {version}, limit: {limit or 'null'}, injected: 0, judges: [mixture]"
    recipe = recipe_of(f"evaluate.benchmarks={{head_to_head: null, reward_bench: {{{settings}}}}}")
    lines = [line for line in plan.lines(recipe, stages()) if line.stage == "evaluate"]
    share = (limit or QUESTIONS[version]) / QUESTIONS[version]
    # 9 calls for a pair: criteria once, and in both orders three assessments and a verdict.
    assert sum(line.calls for line in lines) == pytest.approx(9 * PAIRS[version] * share, abs=1)
