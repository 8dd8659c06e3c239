"""What the plan says that an evaluation can show."""

from __future__ import annotations

from moaa.benchmarks import power
from moaa.recipe.load import load_file
from tests.support.paths import PAPER


def shown(*sets: str) -> list[str]:
    return power.shown(load_file(PAPER, sets).recipe)


def test_a_win_rate_needs_many_prompts() -> None:
    assert shown("evaluate.benchmarks={alpaca_eval: {}}") == [
        "Head to head: 500 prompts show a win rate of 56.3 % or more to be a win",
        "AlpacaEval 2: 805 prompts show a win rate of 53.9 % or more to be a win",
    ]
    assert shown("evaluate.benchmarks={head_to_head: null, arena_hard: {}}") == [
        "Arena-Hard: 500 prompts show a win rate of 55.0 % or more to be a win"
    ]
    assert shown("evaluate.benchmarks={}", "prompts.evaluation.0.limit=8") == [
        "Head to head: 8 prompts show a win rate of 99.5 % or more to be a win"
    ]
    assert shown("evaluate.benchmarks={}", "prompts.evaluation.0.limit=7") == [
        "Head to head: 7 prompts show no difference, however large"
    ]


def test_reasoning_is_shown_to_be_kept_within_a_margin() -> None:
    assert shown("evaluate.benchmarks={head_to_head: null, gsm8k: {}}") == [
        "GSM8K: 1,319 questions prove that a model is not worse by more than 2.2 points, if it "
        "answers 10% of them otherwise; a floor of 3 points is proven for an equal model in 96% of "
        "cases"
    ]


def test_the_floor_is_the_gates() -> None:
    """The arithmetic: a standard deviation of sqrt(0.1); errors of 0.87 points for 1,319 questions,
    of 0.59 for the mean (541 of IFEval, 2,000 of MMLU-Pro); cdf(1 / error - 1.645)."""
    alone, *others, prompts, mean = shown(
        "gate={floor: 0.01}",
        "evaluate.benchmarks={gsm8k: {}, ifeval: {}, mmlu_pro: {}, head_to_head: {}}",
    )[1:]
    assert "GSM8K" in alone
    assert "a floor of 1 points is proven for an equal model in 31% of cases" in alone
    assert len(others) == 2
    assert prompts.startswith("Gate: With 500 prompts")
    assert mean == (
        "Gate: reasoning, the mean of 3 benchmarks: a floor of 1 points is proven for an equal "
        "model in 52% of cases"
    )


def test_without_benchmarks_of_reasoning_nothing_is_said_of_their_mean() -> None:
    assert [
        each for each in shown("gate={}", "evaluate.benchmarks={}") if "reasoning" in each
    ] == []


def test_judges_are_told_apart_by_pairs() -> None:
    found = shown(
        "evaluate.benchmarks={head_to_head: null, judge_bench: {limit: 350}, mt_bench: {}}",
    )
    assert found == [
        "JudgeBench: 350 questions tell judges apart that are 4.7 points apart, if they differ on "
        "10% of them"
    ]
