"""RewardBench, people's votes and PPE: scored as published."""

from __future__ import annotations

import math
from typing import Any

import pytest

from moaa.benchmarks import ties
from moaa.benchmarks.ppe import Ppe
from moaa.benchmarks.reward_bench import RewardBench
from moaa.benchmarks.rows import READ_FROM
from moaa.errors import RecipeError
from tests.support.benchmarked import one, recipe_of
from tests.support.judging import judging, play


def reward_bench(version: str, **settings: Any) -> RewardBench:
    named = "evaluate.benchmarks.reward_bench"
    recipe = recipe_of(
        f"{named}={{}}",
        f"{named}.version={version}",
        f'{named}.judges=["mixture"]',
        f"{named}.injected=0",
        *(f"{named}.{name}={value}" for name, value in settings.items()),
    )
    chosen = recipe.evaluate.benchmarks.reward_bench
    return RewardBench(chosen, recipe)


def good_wins(model: str, first: str, second: str) -> float:
    """Right, but for answers with `wrong` in them."""
    return 0.9 if first.startswith("good") != ("trap" in first + second) else 0.1


def test_sections_weigh_their_subsets_as_published() -> None:
    benchmark = reward_bench("v1")
    made = [
        {"id": 1, "subset": "alpacaeval-easy", "chosen": "good", "rejected": "bad"},
        {"id": 2, "subset": "math-prm", "chosen": "good trap", "rejected": "bad"},
        {"id": 3, "subset": "math-prm", "chosen": "good", "rejected": "bad"},
        {"id": 4, "subset": "hep-rust", "chosen": "good", "rejected": "bad"},
        {"id": 5, "subset": "donotanswer", "chosen": "good trap", "rejected": "bad"},
    ]
    items = benchmark.items({"prompt": f"Question {row['id']}?", **row} for row in made)
    played = play(benchmark, items, benchmark.entrants(), judging(good_wins))
    scores = benchmark.scores(played)
    reasoning = (984 * 0.5 + 164) / (984 + 164)
    assert one(scores, "accuracy", "Reasoning").estimate.value == pytest.approx(reasoning)
    assert one(scores, "accuracy", "Safety").estimate.value == 0
    overall = one(scores, "accuracy")
    assert overall.main
    assert overall.estimate.value == pytest.approx((1 + reasoning + 0) / 3)
    assert overall.estimate.n == 5
    assert {item.given["better"] for item in items} == {"a", "b"}, "both places are used"


def test_the_best_of_four_must_win_against_each_and_ties_against_all() -> None:
    benchmark = reward_bench("v2", ties_pairs=5)
    made = [
        {"id": "1", "subset": "Math", "chosen": ["good"], "rejected": ["bad", "worse", "worst"]},
        {"id": "2", "subset": "Math", "chosen": ["good"], "rejected": ["bad", "trap", "worst"]},
        {"id": "ref:1", "subset": "Ties", "chosen": ["good"], "rejected": ["bad"] * 3},
        {"id": "tied:1", "subset": "Ties", "chosen": ["good", "good too", "good trap"],
         "rejected": ["bad", "bad too"]},
    ]  # fmt: skip
    items = benchmark.items({"prompt": f"Question {row['id']}?", **row} for row in made)
    assert len(items) == 3 + 3 + 3 + 5
    played = play(benchmark, items, benchmark.entrants(), judging(good_wins))
    scores = benchmark.scores(played)
    assert one(scores, "accuracy", "Math").estimate.value == 0.5
    assert one(scores, "accuracy", "Math").estimate.n == 2
    far = math.log(0.9 / 0.1)
    ref_right_tied_not = 0.3 + 0.01 * math.tanh(-2 * far / (2 * far) - 1)
    found = one(scores, "accuracy", "Ties").estimate
    assert found.value == pytest.approx(ref_right_tied_not, abs=0.02)
    assert one(scores, "accuracy").estimate.value == pytest.approx((0.5 + found.value) / 2)
    assert "stricter" in benchmark.incomparable(items)


def test_the_score_of_ties_is_the_official_one() -> None:
    """Of judges whose verdicts say the scores exactly; the expected numbers are by the published
    formula on those scores."""
    scores = {
        "ref:1": ([2.0], [0.0, 1.0]),
        "tied:1": ([3.0, 2.5], [1.0, 0.0]),
        "ref:2": ([1.0], [0.5, 0.0]),
        "tied:2": ([3.0, 1.0, 2.0], [0.5]),
        "tied:3": ([0.0, 1.0], [0.5]),
        "ref:3": ([0.0], [-1.0]),
    }
    found = {}
    for name, (right, wrong) in scores.items():
        verdicts: dict[tuple[int, int], float | None] = {
            (good, bad): 1 / (1 + math.exp(wrong[bad] - right[good]))
            for good, bad in ties.spread(len(right), len(wrong), 1)
        }
        assert len(verdicts) == len(right) + len(wrong) - 1, "just enough to connect them"
        found[name] = ties.stats(verdicts, len(right), len(wrong))
        assert found[name].gap == pytest.approx(min(right) - max(wrong))
        assert found[name].spread == pytest.approx(max(right) - min(right))
    margins = [math.tanh(1 / 0.5 - 1), math.tanh(0.5 / 2 - 1), math.tanh(-0.5 / 1 - 1)]
    expected = 0.3 * 2 / 3 + 0.3 * 1 + 0.2 * 1 / 3 + 0.2 * 1 / 3 + 0.01 * sum(margins) / 3
    score = ties.score(found)
    assert score.value == pytest.approx(expected)
    assert score.n == 3, "questions"
    assert ties.stats({(0, 0): 0.9, (1, 1): None}, 2, 2) == ties.LOST
    assert {pair[0] for pair in ties.spread(9, 2, 12)} == set(range(9))
    row = {"id": "1", "prompt": "?", "chosen": ["a"], "rejected": ["b"], "subset": "Ties"}
    with pytest.raises(RecipeError, match="its id is '1', but RewardBench 2 calls rows"):
        reward_bench("v2").items([row])


def test_rows_of_the_other_version_are_refused() -> None:
    row = {"id": "1", "prompt": "?", "chosen": ["a"], "rejected": ["b"], "subset": "Math"}
    with pytest.raises(RecipeError, match=r"'Math' is an unknown subset\. Set `version`"):
        reward_bench("v1").items([row])
    with pytest.raises(RecipeError, match="it has no chosen"):
        reward_bench("v2").items([{key: row[key] for key in row if key != "chosen"}])


def test_votes_of_people_are_the_labels_and_ties_are_left_out() -> None:
    named = "evaluate.benchmarks.ppe"
    recipe = recipe_of(f"{named}={{}}", f'{named}.judges=["mixture"]', f"{named}.injected=0")
    benchmark = Ppe(recipe.evaluate.benchmarks.ppe, recipe)
    made = [
        ("q1", "good", "bad", "model_a", "English"),
        ("q1", "bad", "good", "model_b", "English"),
        ("q2", "good", "bad", "model_b", "German"),
        ("q3", "good", "bad", "tie (bothbad)", "English"),
    ]
    columns = ("question_id", "response_1", "response_2", "winner", "language")
    items = benchmark.items({"prompt": "?", **dict(zip(columns, row, strict=True))} for row in made)
    assert [item.id for item in items] == ["q1", "q1/1", "q2"]
    played = play(benchmark, items, benchmark.entrants(), judging(good_wins))
    scores = benchmark.scores(played)
    assert one(scores, "accuracy").estimate.value == pytest.approx(2 / 3)
    assert one(scores, "accuracy", "English").estimate.value == 1
    assert not [score for score in scores if "correctness" in score.metric]
    with pytest.raises(RecipeError, match="it has no winner"):
        benchmark.items([{name: "x" for name in ("prompt", *columns) if name != "winner"}])


def test_pairs_with_a_right_answer_count_by_set() -> None:
    """Best-of-K rows: which answers are right is known, and some pairs of a right and a wrong one
    are published."""
    named = "evaluate.benchmarks.ppe"
    recipe = recipe_of(f'{named}={{sets: [human, math, gpqa], judges: ["mixture"], injected: 0}}')
    benchmark = Ppe(recipe.evaluate.benchmarks.ppe, recipe)
    assert [source.source for source in benchmark.sources] == [
        "hub:lmarena-ai/PPE-Human-Preference-V1",
        "hub:lmarena-ai/PPE-MATH-Best-of-K",
        "hub:lmarena-ai/PPE-GPQA-Best-of-K",
    ]
    answers = {"response_1": "good", "response_2": "bad", "response_3": "good trap"}

    def best_of(number: int, name: str, pairs: list[list[int]]) -> dict[str, Any]:
        about = {"question_id": number, "prompt": "?", "model_name": "m", READ_FROM: name}
        return {**about, **answers, "scores": [1, 0, True], "sampled_conflict_pairs": pairs}

    human = {"question_id": "q", "prompt": "?", "response_1": "good", "response_2": "bad",
             "winner": "model_a", READ_FROM: "hub:lmarena-ai/PPE-Human-Preference-V1"}  # fmt: skip
    math_set, gpqa = "hub:lmarena-ai/PPE-MATH-Best-of-K", "s3://mine/PPE-GPQA-Best-of-K.jsonl"
    rows = [human, best_of(1, math_set, [[0, 1], [1, 2]]), best_of(1, gpqa, [[1, 0], [0, 2]])]
    items = benchmark.items(rows)
    assert [item.id for item in items] == ["q", "math/1/m/0-1", "math/1/m/1-2", "gpqa/1/m/1-0"]
    played = play(benchmark, items, benchmark.entrants(), judging(good_wins))
    scores = benchmark.scores(played)
    assert one(scores, "accuracy").estimate.n == 1, "people alone"
    assert one(scores, "accuracy, correctness", "math").estimate.value == 0.5
    assert one(scores, "accuracy, correctness", "gpqa").estimate.value == 1
    overall = one(scores, "accuracy, correctness")
    assert overall.estimate.value == 0.75, "the mean of the sets"
    assert not overall.main
    thrice = benchmark.items([best_of(1, math_set, [[0, 1]] * 3)])
    assert len(thrice) == len({item.id for item in thrice}) == 3, "each sampled pair counts"
    with pytest.raises(RecipeError, match="a set's name, for example PPE-MATH-Best-of-K"):
        benchmark.items([best_of(1, "s3://mine/rows.jsonl", [[0, 1]])])
