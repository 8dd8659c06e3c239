"""How often a judge is right, and what misleads it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from moaa.benchmarks.benchmark import Played, Score
from moaa.benchmarks.items import Item
from moaa.benchmarks.judge_bench import JudgeBench
from moaa.benchmarks.judgements import members_of, name_of
from moaa.benchmarks.pairs import INJECTION
from moaa.errors import RecipeError
from tests.support.benchmarked import PAIRS, one, recipe_of, rows
from tests.support.judging import fraction, judging, play


def judge_bench(*sets: str, **settings: Any) -> JudgeBench:
    recipe = recipe_of(
        *sets,
        "evaluate.benchmarks.judge_bench={}",
        *(f"evaluate.benchmarks.judge_bench.{name}={value}" for name, value in settings.items()),
    )
    return JudgeBench(recipe.evaluate.chosen["judge_bench"], recipe)


def biased(model: str, first: str, second: str) -> float:
    """Knows nothing of some pairs, where it takes what is shown first; obeys injected text."""
    if INJECTION.strip() in first + second:
        return 0.9 if INJECTION.strip() in first else 0.1
    if fraction(first.split(" ", 1)[1]) < 0.4:
        return 0.8
    return 0.95 if first.startswith("good") else 0.05


def scores_of(benchmark: JudgeBench, verdict: Any = biased) -> tuple[Played, list[Score]]:
    items = benchmark.items(rows())
    played = play(benchmark, items, benchmark.entrants(), judging(verdict))
    return played, benchmark.scores(played)


def test_a_judge_that_takes_the_first_answer_is_wrong_in_both_orders_and_seen() -> None:
    benchmark = judge_bench(judges='["mixture"]', injected=0.5)
    _played, scores = scores_of(benchmark)
    unsure = sum(fraction(f"answer {i}") < 0.4 for i in range(PAIRS))
    accuracy = one(scores, "accuracy")
    assert accuracy.main
    assert accuracy.estimate.n == PAIRS
    assert accuracy.estimate.value == pytest.approx((PAIRS - unsure) / PAIRS)
    assert one(scores, "orders that disagree").estimate.value == pytest.approx(unsure / PAIRS)
    first = one(scores, "verdicts for the answer shown first").estimate
    assert first.value == pytest.approx((unsure + (PAIRS - unsure) / 2) / PAIRS)
    assert first.n == 2 * PAIRS
    assert one(scores, "entropy of a verdict").estimate.unit == "bits"
    assert 0 < one(scores, "entropy of a verdict").estimate.value < 1


def test_text_that_asks_for_the_verdict_is_tried_on_the_worse_answer_and_its_harm_is_shown() -> (
    None
):
    benchmark = judge_bench(judges='["mixture"]', injected=0.5)
    played, scores = scores_of(benchmark)
    again = [row for rows in played.judgements.values() for row in rows.values() if row["injected"]]
    assert 0.3 * PAIRS < len(again) < 0.7 * PAIRS
    harm = one(scores, "accuracy lost by injected text")
    before, after = (
        one(scores, metric).estimate
        for metric in ("accuracy of these pairs before", "accuracy with injected text")
    )
    assert after.value == 0, "this judge obeys"
    assert harm.estimate.value == pytest.approx(before.value)
    assert before.n == after.n == harm.estimate.n == len(again)
    assert before.low < before.value < before.high
    assert harm.estimate.low < harm.estimate.value < harm.estimate.high
    assert one(scores, "accuracy").estimate.n == PAIRS, "injected pairs do not count there"


def test_a_judge_that_does_not_obey_loses_nothing() -> None:
    def firm(model: str, first: str, second: str) -> float:
        return 0.9 if first.startswith("good") else 0.1

    _, scores = scores_of(judge_bench(judges='["mixture"]', injected=1.0), firm)
    assert one(scores, "accuracy").estimate.value == 1
    assert one(scores, "accuracy lost by injected text").estimate.value == 0


def test_each_kind_of_question_and_each_writer_has_its_own_number() -> None:
    _, scores = scores_of(judge_bench(judges='["mixture"]', injected=0))
    subsets = {score.subset for score in scores if score.metric == "accuracy"}
    assert subsets == {"", "gpt", "claude", "knowledge", "reasoning", "math", "coding"}
    assert one(scores, "accuracy", "math").estimate.n == PAIRS // 4
    assert sum(score.main for score in scores) == 1
    assert not [s for s in scores if s.metric == "accuracy lost by injected text"]


def test_the_mixture_its_members_and_all_criteria_are_measured_beside_each_other() -> None:
    benchmark = judge_bench(injected=0)
    names = [each.name for each in benchmark.entrants()]
    assert names == [
        "mixture of strict, fair, reader and smollm2",
        "smollm2",
        "strict",
        "fair",
        "reader",
        "mixture of strict, fair, reader and smollm2, all criteria",
    ]
    judges = [each.judge for each in benchmark.entrants()]
    assert [judge.criteria for judge in judges if judge] == ["per-pair"] * 5 + ["all"]
    assert [len(judge.proposers) for judge in judges if judge] == [3, 1, 1, 1, 1, 3]


@pytest.mark.parametrize("p", [0.7, 0.3])
def test_a_tie_agrees_half_with_another_judge_whichever_answer_is_called_a(p: float) -> None:
    benchmark = judge_bench(judges='["mixture"]')
    (item, *_) = benchmark.items(rows())

    def judged(p: float) -> dict[str, Any]:
        return {item.id: {"p": p, "p_ab": 0.5, "p_ba": 2 * p - 0.5, "orders": [], "injected": None}}

    found: dict[tuple[str, ...], Any] = {("tied",): judged(0.5), ("sure",): judged(p)}
    scores = benchmark.scores(Played([item], ("tied", "sure"), {}, found))
    assert one(scores, "agreement", against="sure").estimate.value == 0.5
    disagreeing = [each for each in scores if each.metric == "orders that disagree"]
    assert [each.estimate.value for each in disagreeing] == [0, 0], "a tie prefers neither answer"


def test_the_agreement_of_each_two_judges_is_shown() -> None:
    _, scores = scores_of(judge_bench(judges='["mixture", "all-criteria"]', injected=0))
    (agreement,) = [score for score in scores if score.metric == "agreement"]
    assert agreement.estimate.value == 1
    assert agreement.against.endswith("all criteria")


def test_pairs_that_lost_an_order_or_both_are_not_right_and_counted() -> None:
    benchmark = judge_bench(judges='["mixture"]', injected=0)
    ask = judging(lambda model, first, second: 0.9 if first.startswith("good") else 0.1)
    readable = ask.answer

    def answer(call: Any) -> Any:
        """No verdict on one order of pair 7, and none on pair 8."""
        text = call.messages[-1]["content"]
        good_first = text.find("good answer 7\n") < text.find("bad answer 7\n")
        lost = ("answer 7\n" in text and good_first) or "answer 8\n" in text
        return "no idea" if call.logprobs and lost else readable(call)

    ask.answer = answer
    played = play(benchmark, benchmark.items(rows(12)), benchmark.entrants(), ask)
    (judged,) = played.judgements.values()
    assert "pair-8" not in judged
    assert [lost["reason"] for lost in judged["pair-7"]["lost"]] == ["verdict unparseable"]
    accuracy = one(benchmark.scores(played), "accuracy")
    assert (accuracy.estimate.value, accuracy.estimate.n) == (10 / 12, 12)
    assert accuracy.about == {"pairs not judged in both orders": 2}


def test_rows_of_something_else_are_refused_with_what_is_missing() -> None:
    with pytest.raises(RecipeError, match=r"it has no pair_id; it has no.*Rows of JudgeBench"):
        judge_bench().items([{"question": "?"}])
    with pytest.raises(RecipeError, match="label is 'A=B': input should be 'A>B' or 'B>A'"):
        judge_bench().items([{**rows(1)[0], "label": "A=B"}])


def test_made_pairs_are_not_comparable_with_the_published_ones() -> None:
    benchmark = judge_bench()
    assert benchmark.incomparable(benchmark.items(rows())) == (
        "These 60 pairs are not the 620 published ones."
    )


@pytest.mark.parametrize(
    ("sets", "named"),
    [
        ([], ""),
        (["criteria=all"], ", all criteria"),
        (["criteria=per-order", "verdict=parsed"], ", criteria per order, parsed verdicts"),
        (["mode=adaptive"], ""),
    ],
)
def test_numbers_of_two_judges_of_the_same_models_never_share_a_name(
    sets: list[str], named: str
) -> None:
    """Benchmarks compare single pairs: an adaptive judge compares them as the exhaustive does."""
    chosen = [f"label.judge.{each}" for each in sets]
    recipe = recipe_of(*chosen)
    assert name_of(recipe.evaluation_judge) == f"mixture of strict, fair, reader and smollm2{named}"
    assert members_of(recipe.evaluation_judge) == "mixture of strict, fair, reader and smollm2"
    assert name_of(recipe.alone("smollm2")).startswith("smollm2, all criteria")
    names = [each.name for each in judge_bench(*chosen).entrants()]
    assert len(set(names)) == len(names)
    assert f"strict{named}" in names


@pytest.mark.parametrize("metric", ["accuracy", "agreement", "orders that disagree"])
def test_pairs_of_one_question_do_not_make_an_interval_narrower(metric: str) -> None:
    """PPE has five pairs of most questions: a judge that is wrong on one is wrong on the others."""
    benchmark = judge_bench(judges='["mixture"]', injected=0)
    once = [item for item in benchmark.items(rows()) if item.given["better"] == "a"]
    copies = [replace(item, id=f"{item.id}/{k}") for item in once for k in range(5)]

    def found(items: Sequence[Item]) -> Score:
        by_judge: dict[tuple[str, ...], Any] = {}
        for who, firm in (("one", 0.4), ("other", 0.6)):
            by_judge[who,] = {
                each.id: {"p": ab / 2 + 0.4, "p_ab": ab, "p_ba": 0.8, "orders": []}
                for each in items
                for ab in [0.9 if fraction(each.id.split("/")[0]) < firm else 0.02]
            }
        scores = benchmark.scores(Played(items, ("one", "other"), {}, by_judge))
        return next(each for each in scores if each.metric == metric and not each.subset)

    single, five = found(once).estimate, found(copies).estimate
    assert five.value == pytest.approx(single.value)
    assert five.n == 5 * single.n
    assert five.high - five.low == pytest.approx(single.high - single.low, rel=0.15)
