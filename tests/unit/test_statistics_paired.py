"""Estimates, means and paired differences, against closed forms and simulations."""

import math
from statistics import NormalDist

import numpy as np
import pytest

from moaa.statistics import (
    Estimate,
    binary_difference,
    difference,
    mcnemar,
    mean,
    normal,
    p_value,
    pooled,
    share,
    standard_error,
    wilson,
)


def test_an_estimate_refuses_what_no_formula_should_give() -> None:
    for value, low, high, n in [
        (0.5, 0.6, 0.4, 10),
        (math.nan, 0.1, 0.2, 10),
        (0.5, math.nan, 0.7, 10),
        (0.5, 0.4, 0.6, 0),
    ]:
        with pytest.raises(ValueError, match="not an estimate"):
            Estimate(value, low, high, n)


def test_a_scaled_estimate_is_the_same_number_in_another_unit() -> None:
    points = share(8, 10).scaled(100, "points")
    assert (points.value, points.n, points.unit) == (80, 10, "points")
    assert (points.low, points.high) == pytest.approx((49.02, 94.33), abs=0.01)


def test_a_share_has_the_wilson_interval_and_needs_an_item() -> None:
    found = share(2.5, 5)
    assert (found.low, found.high) == pytest.approx(wilson(2.5, 5))
    assert share(50, 100, level=0.9).high < share(50, 100).high
    with pytest.raises(ValueError, match="nothing was judged"):
        share(0, 0)


def test_the_error_of_a_mean_is_the_textbook_one() -> None:
    values = [1.0, 0.0, 1.0, 1.0]
    assert standard_error(values) == pytest.approx(0.25)
    found = mean(values, unit="points")
    assert (found.value, found.n, found.unit) == (0.75, 4, "points")
    assert (found.low, found.high) == pytest.approx((0.75 - 0.49, 0.75 + 0.49), abs=1e-4)


def test_items_that_are_copies_of_each_other_count_once() -> None:
    values = [1.0, 0.0, 1.0, 0.0, 0.0]
    copies = values * 4
    clusters = list(range(5)) * 4
    # Without Bessel's correction, as the formula has it: sqrt(4/5) of the error of the five.
    assert standard_error(copies, clusters) == pytest.approx(
        standard_error(values) * math.sqrt(4 / 5)
    )
    assert standard_error(copies) < 0.6 * standard_error(copies, clusters)


def test_one_value_or_one_cluster_says_nothing_about_the_error() -> None:
    assert standard_error([0.7]) == math.inf
    assert standard_error([0.7, 0.1], ["a", "a"]) == math.inf
    assert (mean([0.7]).low, mean([0.7]).high) == (0, 1)
    assert mean([7.0], unit="points").high == math.inf
    with pytest.raises(ValueError, match="2 values, but 1 clusters"):
        standard_error([0.7, 0.1], ["a"])


def test_a_difference_is_paired() -> None:
    draw = np.random.default_rng(0)
    hardness = draw.random(400)
    a = (hardness + 0.05).tolist()
    b = (hardness + draw.normal(0, 0.01, 400)).tolist()
    found = difference(a, b)
    assert found.low < 0.05 < found.high
    assert found.high - found.low < 0.003, "the hardness of the items cancels out"
    with pytest.raises(ValueError, match="not paired: 400 and 1"):
        difference(a, b[:1])


def test_clustered_intervals_cover_the_truth_and_others_do_not() -> None:
    draw = np.random.default_rng(3)
    clusters = np.repeat(np.arange(60), 8)
    covered = {"clustered": 0, "plain": 0}
    for _ in range(300):
        values = draw.normal(0, 1, 60)[clusters] + draw.normal(0, 1, 480)
        for name, known in (("clustered", clusters.tolist()), ("plain", None)):
            found = mean(values, known, unit="points")
            covered[name] += found.low <= 0 <= found.high
    assert 0.91 <= covered["clustered"] / 300 <= 0.98
    assert covered["plain"] / 300 < 0.8


def test_agresti_and_min_s_interval_is_theirs() -> None:
    # b = 40 and c = 20 of 100: (c - b) / (n + 2) = 20 / 102, half = 1.96 sqrt(61 - 400/102) / 102.
    a = [True] * 40 + [False] * 20 + [True] * 40
    b = [False] * 40 + [True] * 20 + [True] * 40
    found = binary_difference(a, b)
    assert (found.value, found.n) == (0.2, 100)
    assert (found.low, found.high) == pytest.approx((0.0509, 0.3412), abs=1e-4)


def test_two_equal_models_still_have_an_interval() -> None:
    found = binary_difference([True] * 20, [True] * 20)
    assert found.value == 0
    assert found.low == pytest.approx(-1.959964 / 22)
    assert found.high == pytest.approx(1.959964 / 22)


@pytest.mark.parametrize("n", [20, 164])
def test_agresti_and_min_s_interval_covers_the_truth(n: int) -> None:
    draw = np.random.default_rng(n)
    covered = 0
    for _ in range(400):
        easy = draw.random(n) < 0.5
        a, b = easy | (draw.random(n) < 0.2), easy | (draw.random(n) < 0.1)
        found = binary_difference(a.tolist(), b.tolist())
        covered += found.low <= 0.05 <= found.high
    assert covered / 400 >= 0.93


@pytest.mark.parametrize(
    ("more", "less", "p"),
    [(5, 0, 2 / 32), (0, 0, 1.0), (3, 3, 1.0), (8, 2, 2 * (1 + 10 + 45) / 1024)],
)
def test_mcnemar_is_a_coin_tossed_for_each_item_that_differs(
    more: int, less: int, p: float
) -> None:
    a = [True] * more + [False] * less + [True] * 7
    b = [False] * more + [True] * less + [True] * 7
    assert mcnemar(a, b) == pytest.approx(p)


def test_a_difference_whose_interval_ends_at_nothing_has_a_p_value_of_a_twentieth() -> None:
    found = difference([0.3, 0.5, 0.1, 0.4], [0.0, 0.0, 0.0, 0.0])
    error = standard_error([0.3, 0.5, 0.1, 0.4])
    assert p_value(found) == pytest.approx(2 * NormalDist().cdf(-found.value / error))
    assert p_value(normal(1.959964, 1.0, 9, "points")) == pytest.approx(0.05, abs=1e-4)
    assert p_value(normal(0.0, 0.0, 9)) == 1
    assert p_value(normal(0.1, 0.0, 9)) == 0


def test_ten_of_ten_do_not_prove_the_eleventh() -> None:
    assert mean([1.0] * 10) == share(10, 10)
    clustered = mean([1.0] * 10, ["a"] * 5 + ["b"] * 5)
    assert (clustered.low, clustered.high) == pytest.approx(wilson(2, 2))
    assert mean([7.0] * 10, unit="points").high == 7


@pytest.mark.parametrize("n", [2, 3, 8])
def test_equal_differences_of_a_few_items_prove_no_exact_difference(n: int) -> None:
    best = difference([1.0] * n, [0.0] * n)
    assert (best.value, best.high) == (1, 1)
    assert best.low == pytest.approx(binary_difference([True] * n, [False] * n).low)
    equal = difference([0.7] * n, [0.7] * n)
    assert -equal.low == equal.high == pytest.approx(1.959964 / (n + 2), abs=1e-6)
    # One better and one worse answer in each cluster: the clusters have no spread, but are few.
    clusters = [str(i // 2) for i in range(2 * n)]
    again = difference([1.0, 0.0] * n, [0.0, 1.0] * n, clusters)
    assert (again.low, again.high, again.n) == pytest.approx((equal.low, equal.high, 2 * n))


def test_the_error_of_an_interval_cut_at_its_range_is_that_of_the_longer_side() -> None:
    cut = normal(0.6, 0.31, 5, "difference of shares")
    assert (cut.low < 0, cut.high) == (True, 1)
    assert cut.error == pytest.approx(0.31)
    assert p_value(cut) > 0.05, "its interval has 0 inside"
    assert p_value(normal(1.0, math.inf, 4, "difference of shares")) > 0.05, "of one cluster"


@pytest.mark.parametrize("n", [1, 2, 5])
def test_the_mean_of_strata_of_a_few_items_covers_the_truth(n: int) -> None:
    draw, strata, truth, inside = np.random.default_rng(n), 23, 0.8, 0
    for _ in range(300):
        right = draw.random((strata, n)) < truth
        value, error, _ = pooled((1.0, mean(row.astype(float))) for row in right)
        inside += abs(value - truth) <= 1.96 * error
    assert inside / 300 > 0.92


@pytest.mark.parametrize(
    ("ratings", "low", "high"),
    [([10.0] * 5, 6.0, 10.0), ([1.0] * 5, 1.0, 5.0), ([10.0] * 80, 9.5, 10.0)],
)
def test_only_the_best_or_the_worst_ratings_do_not_prove_the_next_one(
    ratings: list[float], low: float, high: float
) -> None:
    found = mean(ratings, unit="rating")
    assert found.low == pytest.approx(low, abs=0.15)
    assert found.high == pytest.approx(high, abs=0.15)
    assert found.low < found.high
