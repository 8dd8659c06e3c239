"""Ranking by soft wins, and the pair that comes of it."""

import random
from dataclasses import replace
from itertools import combinations, pairwise

import pytest

from moaa.errors import RowRejected
from moaa.judge import Judgement
from moaa.preference import PRIOR, bradley_terry, distinct, pair, rank


def judged(a: int, b: int, p: float) -> Judgement:
    return Judgement(a, b, p, p, ())


def test_answers_are_ranked_by_the_sum_of_soft_wins():
    ranking = rank(3, [judged(0, 1, 0.25), judged(0, 2, 0.75), judged(1, 2, 1.0)])
    assert ranking.wins == (1.0, 1.75, 0.25)
    assert ranking.order == (1, 0, 2)
    found = pair(ranking)
    assert found
    assert (found.chosen, found.rejected, found.margin) == (1, 2, 1.5)


def test_complete_ties_fall_to_the_lower_index():
    ranking = rank(4, [judged(a, b, 0.5) for a, b in combinations(range(4), 2)])
    assert ranking.order == (0, 1, 2, 3)
    assert (found := pair(ranking))
    assert found.margin == 0


def test_a_tie_that_differs_only_by_rounding_is_a_tie():
    # 0.3 + 0.2 + 0.1 is less than 0.1 + 0.2 + 0.3 in floating point
    judgements = [judged(0, i, p) for i, p in ((3, 0.3), (2, 0.2), (1, 0.1))]
    judgements += [judged(4, i, p) for i, p in ((1, 0.1), (2, 0.2), (3, 0.3))]
    ranking = rank(5, judgements)
    assert ranking.wins[0] < ranking.wins[4]
    assert ranking.order.index(0) < ranking.order.index(4)


def test_equal_wins_are_decided_by_strength_where_the_opponents_differ():
    # 0 and 1 both won one game: 0 against the weak 2, 1 against 3, which beat 2
    judgements = [judged(0, 2, 1.0), judged(1, 3, 1.0), judged(2, 3, 0.0)]
    ranking = rank(4, judgements)
    assert ranking.wins[0] == ranking.wins[1] == ranking.wins[3] == 1.0
    strengths = bradley_terry(4, judgements)
    assert strengths[1] > strengths[0]
    assert ranking.order[0] == 1


def test_a_pair_judged_twice_is_no_complete_tournament():
    # 0 and 1 tie at 1.0 wins, but 0 had two games against 2 and 1 had one: 1 is stronger.
    judgements = [judged(0, 1, 0.5), judged(0, 2, 0.25), judged(0, 2, 0.25), judged(1, 2, 0.5)]
    assert rank(3, judgements).wins[:2] == (1.0, 1.0)
    assert rank(3, judgements).order == by_wins_then_strength(3, judgements)
    assert rank(3, judgements).order.index(1) < rank(3, judgements).order.index(0)


def by_wins_then_strength(n: int, judgements: list[Judgement]) -> tuple[int, ...]:
    """The order with strengths always computed."""
    wins = rank(n, judgements).wins
    strengths = bradley_terry(n, judgements)
    return tuple(sorted(range(n), key=lambda i: (-round(wins[i], 9), -round(strengths[i], 9), i)))


@pytest.mark.parametrize("seed", range(200))
def test_strengths_change_nothing_in_a_complete_tournament(seed, monkeypatch):
    draw = random.Random(seed)
    n = draw.randint(2, 7)
    judgements = [
        judged(a, b, draw.choice([0.0, 0.25, 0.5, 0.75, 1.0, draw.random()]))
        for a, b in combinations(range(n), 2)
    ]
    draw.shuffle(judgements)
    expected = by_wins_then_strength(n, judgements)
    monkeypatch.delattr("moaa.preference.bradley_terry")  # not even called
    assert rank(n, judgements).order == expected


@pytest.mark.parametrize("seed", range(20))
def test_a_true_order_is_found_whatever_the_indices(seed):
    draw = random.Random(seed)
    n = draw.randint(2, 8)
    strength = [2.0 ** draw.uniform(-4, 4) for _ in range(n)]
    judgements = [
        judged(a, b, strength[a] / (strength[a] + strength[b]))
        for a, b in combinations(range(n), 2)
    ]
    draw.shuffle(judgements)
    ranking = rank(n, judgements)
    truth = sorted(range(n), key=lambda i: -strength[i])
    assert list(ranking.order) == truth
    assert sum(ranking.wins) == pytest.approx(n * (n - 1) / 2)
    strengths = bradley_terry(n, judgements)
    assert sorted(range(n), key=lambda i: -strengths[i]) == truth

    renamed = list(range(n))
    draw.shuffle(renamed)
    again = rank(n, [replace(j, a=renamed[j.a], b=renamed[j.b]) for j in judgements])
    assert list(again.order) == [renamed[i] for i in truth]


@pytest.mark.parametrize("seed", range(20))
def test_swapping_a_pair_or_the_judgements_order_changes_nothing(seed):
    draw = random.Random(seed)
    judgements = [
        judged(a, b, draw.choice([0.0, 0.25, 0.5, 0.75, 1.0])) for a, b in combinations(range(5), 2)
    ]
    mirrored = [
        judged(j.b, j.a, 1 - j.p) if j.p is not None and draw.random() < 0.5 else j
        for j in judgements
    ]
    draw.shuffle(mirrored)
    assert rank(5, judgements).order == rank(5, mirrored).order
    wins = rank(5, judgements).wins
    order = rank(5, judgements).order
    assert all((wins[i], -i) > (wins[j], -j) for i, j in pairwise(order))


def test_strengths_solve_the_bradley_terry_equations():
    judgements = [judged(0, 1, 0.8), judged(0, 2, 0.9), judged(1, 2, 0.7), judged(0, 1, 0.6)]
    s = bradley_terry(3, judgements)
    assert sum(s) / 3 == pytest.approx(1)
    assert s[0] > s[1] > s[2] > 0
    expected_wins_of_0 = 2 * s[0] / (s[0] + s[1]) + s[0] / (s[0] + s[2])
    assert expected_wins_of_0 == pytest.approx(0.8 + 0.9 + 0.6, abs=0.1)  # the prior pulls a little


def test_an_unbeaten_answer_has_a_finite_strength():
    strong, weak = bradley_terry(2, [judged(0, 1, 1.0)])
    # before the mean is made 1, both lie around the prior's opponent of strength 1: strong = 1 /
    # weak
    strong = (strong / weak) ** 0.5
    won = PRIOR * strong / (strong + 1) + strong**2 / (strong**2 + 1)
    assert won == pytest.approx(1 + PRIOR / 2, abs=1e-6)


def test_min_margin_drops_unclear_prompts_and_keeps_the_limit_itself():
    ranking = rank(2, [judged(0, 1, 0.75)])
    assert (found := pair(ranking, min_margin=0.5))
    assert found.margin == 0.5
    assert pair(ranking, min_margin=0.51) is None


def test_identical_answers_are_merged_with_their_counts():
    answers = [
        ("Paris", "stop"),
        ("Rome", "length"),
        (" Paris\n", "stop"),
        ("", "stop"),
        ("paris", "stop"),
        ("Paris", "stop"),
    ]
    assert distinct(answers) == [
        {"text": "Paris", "count": 3, "finish_reason": "stop"},
        {"text": "Rome", "count": 1, "finish_reason": "length"},
        {"text": "paris", "count": 1, "finish_reason": "stop"},
    ]


@pytest.mark.parametrize("texts", [[], ["x"] * 5, ["x", " x", "", "  "], ["", ""]])
def test_fewer_than_two_distinct_answers_prefer_nothing(texts):
    with pytest.raises(RowRejected) as caught:
        distinct([(text, "stop") for text in texts])
    assert caught.value.reason == "fewer than two distinct answers"
    assert str(len(texts)) in caught.value.detail
