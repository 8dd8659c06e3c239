"""What the plan says that an evaluation can show."""

from __future__ import annotations

from moaa.benchmarks import power
from moaa.recipe.load import load_file
from tests.support.paths import PAPER


def shown(*sets: str) -> list[str]:
    return power.shown(load_file(PAPER, sets).recipe)


def test_a_win_rate_needs_many_prompts() -> None:
    assert shown("evaluate.benchmarks.alpaca_eval={}") == [
        "Head to head: 500 prompts show a win rate of 55.0 % or more to be a win",
        "AlpacaEval 2: 805 prompts show a win rate of 53.9 % or more to be a win",
    ]
    assert shown("evaluate.benchmarks={head_to_head: null, arena_hard: {}}") == [
        "Arena-Hard: 500 prompts show a win rate of 55.0 % or more to be a win"
    ]
    assert shown("prompts.evaluation.0.limit=6") == [
        "Head to head: 6 prompts show a win rate of 95.7 % or more to be a win"
    ]
    assert shown("prompts.evaluation.0.limit=5") == [
        "Head to head: 5 prompts show no difference, however large"
    ]


def test_reasoning_is_shown_to_be_kept_within_a_margin() -> None:
    assert shown("evaluate.benchmarks.head_to_head=null", "evaluate.benchmarks.gsm8k={}") == [
        "GSM8K: 1,319 questions prove that a model is not worse by more than 2.2 points, if it "
        "answers 10% of them otherwise; a floor of 3 points is proven for an equal model in 96% of "
        "cases"
    ]


def test_judges_are_told_apart_by_pairs() -> None:
    found = shown(
        "evaluate.benchmarks.head_to_head=null",
        "evaluate.benchmarks.judge_bench={limit: 350}",
        "evaluate.benchmarks.mt_bench={}",
    )
    assert found == [
        "JudgeBench: 350 pairs tell judges apart that are 4.7 points apart, if they differ on 10% "
        "of them"
    ]
