"""Head to head: who meets whom, and the numbers of a pair."""

from __future__ import annotations

from typing import Any

import pytest

from moaa.benchmarks import EntrantAnswer, Played
from moaa.benchmarks.head_to_head import HeadToHead
from moaa.recipe.load import load_file
from moaa.statistics import FEWEST
from tests.support.paths import DEMO


def benchmark() -> HeadToHead:
    recipe = load_file(DEMO, ["evaluate.benchmarks={}"]).recipe
    return HeadToHead(recipe.evaluate.benchmarks.head_to_head, recipe)  # type: ignore[arg-type]


def played(p: list[float | None], longer: int = 10) -> Played:
    """A pair with these probabilities; each answer of dpo is so many characters longer."""
    ids = [str(number) for number in range(len(p))]
    rows: list[dict[str, Any]] = [
        {"id": id, "source": "s", "system": None, "turns": ["Why?"]} for id in ids
    ]
    lengths = {"base": 0, "dpo": longer}
    answers = {
        who: {
            id: (EntrantAnswer((), "x" * (20 + 7 * int(id) % 11 + more), 5, "stop"),) for id in ids
        }
        for who, more in lengths.items()
    }
    judged = {id: {"p": each} for id, each in zip(ids, p, strict=True)}
    return Played(benchmark().items(rows), ("base", "dpo"), answers, {("dpo", "base"): judged})


def test_every_pair_meets_the_later_contestant_against_the_earlier() -> None:
    pairs = benchmark().matches(("mixture", "base", "sft", "production"))
    assert len(pairs) == 6
    assert pairs[0] == ("base", "mixture")
    assert ("production", "sft") in pairs


def test_a_tie_counts_half_and_what_was_not_judged_not_at_all() -> None:
    rate, soft = benchmark().scores(played([0.9, 0.5, 0.2, None]))
    assert (rate.metric, rate.against, rate.main) == ("win rate", "base", True)
    assert (rate.estimate.value, rate.estimate.n) == (0.5, 3)
    assert rate.about == {"wins": 1, "ties": 1}
    assert soft.estimate.value == pytest.approx((0.9 + 0.5 + 0.2) / 3)


def test_the_rate_at_equal_length_needs_a_few_prompts() -> None:
    few = [score.metric for score in benchmark().scores(played([0.7] * (FEWEST - 1)))]
    assert "win rate at equal length" not in few
    scores = {score.metric: score for score in benchmark().scores(played([0.7, 0.6] * FEWEST))}
    assert 0.5 < scores["win rate at equal length"].estimate.value < 0.8
    assert scores["win rate at equal length"].estimate.n == 2 * FEWEST


def test_a_pair_of_which_nothing_was_judged_has_no_score() -> None:
    assert benchmark().scores(played([None, None])) == []
