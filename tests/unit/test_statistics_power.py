"""What an evaluation can show, and tests done together, against published and closed values."""

import math

import numpy as np
import pytest

from moaa.statistics import detectable_difference, holm, paired_sd, power_of, required_n


@pytest.mark.parametrize(
    ("n", "points"), [(80, 12.5), (164, 8.7), (294, 6.5), (500, 5.0), (805, 3.9)]
)
def test_the_detectable_difference_of_a_win_rate(n: int, points: float) -> None:
    assert 100 * detectable_difference(n, 0.4) == pytest.approx(points, abs=0.06)


@pytest.mark.parametrize(
    ("n", "changed", "points"),
    [(164, 0.1, 6.1), (164, 0.2, 8.7), (541, 0.1, 3.4), (1319, 0.1, 2.2), (12032, 0.2, 1.0)],
)
def test_the_margin_that_non_inferiority_can_prove(n: int, changed: float, points: float) -> None:
    margin = detectable_difference(n, paired_sd(changed), one_sided=True)
    assert 100 * margin == pytest.approx(points, abs=0.06)


@pytest.mark.parametrize("one_sided", [False, True])
def test_required_n_and_power_undo_the_detectable_difference(one_sided: bool) -> None:
    found = detectable_difference(400, 0.45, one_sided=one_sided)
    assert required_n(found, 0.45, one_sided=one_sided) == 400
    assert power_of(400, 0.45, found, one_sided=one_sided) == pytest.approx(0.8)
    assert power_of(400, 0.45, 0, one_sided=one_sided) == pytest.approx(
        0.05 if one_sided else 0.025
    )


def test_a_floor_of_two_points_cannot_pass_on_164_questions() -> None:
    found = [power_of(164, paired_sd(changed), 0.02, one_sided=True) for changed in (0.2, 0.1)]
    assert found == pytest.approx([0.14, 0.20], abs=0.01)


def test_models_that_never_differ_need_no_luck() -> None:
    assert power_of(10, 0, 0.02) == 1
    assert power_of(10, 0, 0) == 0


def test_power_is_how_often_the_difference_is_found() -> None:
    draw = np.random.default_rng(5)
    n, sd, true = 200, 0.4, 0.06
    values = draw.normal(true, sd, (2000, n))
    low = values.mean(axis=1) - 1.959964 * values.std(axis=1, ddof=1) / math.sqrt(n)
    assert power_of(n, sd, true) == pytest.approx(float((low > 0).mean()), abs=0.03)


def test_the_error_of_a_paired_difference_knows_its_net() -> None:
    # 20 % changed, 10 % net: 15 % for a, 5 % for b.
    values = [1.0] * 15 + [-1.0] * 5 + [0.0] * 80
    assert paired_sd(0.2, 0.1) == pytest.approx(float(np.std(values)))


def test_holm_multiplies_by_what_is_left_and_never_goes_down() -> None:
    assert holm({"a": 0.01, "b": 0.04, "c": 0.03}) == pytest.approx(
        {"a": 0.03, "b": 0.06, "c": 0.06}
    )
    assert holm({"a": 0.9, "b": 0.8}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}
