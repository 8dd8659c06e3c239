"""Fitted win rates (length, style) on simulated data whose truth is known."""

from collections.abc import Sequence

import numpy as np
import pytest

from moaa.statistics import (
    Battle,
    Difficulties,
    battle_difference,
    battle_rate,
    binary_difference,
    length_adjusted,
    length_controlled,
    logistic,
    resample,
    style_controlled,
    style_difference,
    style_of,
)
from moaa.statistics.logistic import Array, sigmoid
from tests.support.arena import battles_of, true_rate

DRAW = np.random.default_rng(7)
X = np.column_stack([DRAW.normal(0, 1, (300, 2)), np.ones(300)])
Y = sigmoid(X @ np.array([1.0, 0.02, -0.5]) + DRAW.normal(0, 1, 300))
WEIGHTS = DRAW.random(300) + 0.5


def gradient(w: Array) -> Array:
    return np.asarray(X.T @ (WEIGHTS * (sigmoid(X @ w) - Y)))


@pytest.mark.parametrize("l1", [0.0, 2.0, 10.0, 1e4])
@pytest.mark.parametrize("l2", [0.0, 3.0])
def test_logistic_regression_is_at_its_optimum(l1: float, l2: float) -> None:
    """The conditions that hold at the minimum and nowhere else."""
    w = logistic(X, Y, WEIGHTS, l1=l1, l2=l2)
    slope = gradient(w) + l2 * w
    for each, at in zip(slope, w, strict=True):
        if at == 0:
            assert abs(each) <= l1 + 1e-6
        else:
            assert each == pytest.approx(-l1 * np.sign(at), abs=1e-5)
    zeros = {0.0: [], 2.0: [1], 10.0: [1], 1e4: [0, 1, 2]}[l1]
    assert np.flatnonzero(w == 0).tolist() == zeros


def test_the_start_changes_the_time_and_not_the_result() -> None:
    far = logistic(X, Y, WEIGHTS, l1=2.0, start=np.array([5.0, -5.0, 5.0]))
    assert far == pytest.approx(logistic(X, Y, WEIGHTS, l1=2.0), abs=1e-6)


def test_separated_rows_have_a_solution_with_a_penalty() -> None:
    x, y, ones = np.ones((20, 1)), np.ones(20), np.ones(20)
    assert sigmoid(logistic(x, y, ones, l2=1e-3))[0] > 0.9995


def test_resampling_a_mean_gives_its_error_and_the_same_again() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)

    def fit(counts: Array) -> float:
        return float(counts @ values / counts.sum())

    found = resample(fit, 400, unit="rating", seed=3)
    assert found == resample(fit, 400, unit="rating", seed=3)
    assert found != resample(fit, 400, unit="rating", seed=4)
    assert found.value == pytest.approx(float(values.mean()))
    assert (found.high - found.low) / 2 == pytest.approx(1.96 * 2 / 20, rel=0.1)
    assert (found.n, found.unit) == (400, "rating")


def simulated(n: int, seed: int) -> tuple[list[str], list[float], list[int], list[int]]:
    """Instructions, preferences and lengths: the model is much longer, and that alone helps it."""
    draw = np.random.default_rng(seed)
    base = draw.integers(500, 1500, n)
    own = base + draw.integers(-300, 1500, n)
    delta = base - own
    logit = -1.0 * np.tanh(delta / delta.std(ddof=1)) + 0.5 * DIFFICULTY[:n] - 0.6
    p = sigmoid(logit + draw.normal(0, 0.5, n))
    return [f"instruction {i}" for i in range(n)], p.tolist(), base.tolist(), own.tolist()


DIFFICULTY = np.random.default_rng(11).normal(0, 1, 400)
GAMED = np.column_stack(
    [np.repeat([0.9, -0.9], 200), np.tile(DIFFICULTY[:200], 2), np.repeat([0.2, 0.7], 200)]
)
PUBLISHED = Difficulties({f"instruction {i}": DIFFICULTY[i] for i in range(400)}, GAMED)
AT_EQUAL_LENGTH = float(sigmoid(0.5 * DIFFICULTY - 0.6).mean())


def controlled(rows: Sequence[int], resamples: int = 2) -> float:
    names, p, base, own = simulated(400, seed=2)
    return length_controlled(
        [names[i] for i in rows],
        [p[i] for i in rows],
        ([base[i] for i in rows], [own[i] for i in rows]),
        PUBLISHED,
        resamples=resamples,
    ).value


def test_the_length_controlled_rate_is_that_at_equal_length() -> None:
    _, p, _, _ = simulated(400, seed=2)
    assert np.mean(p) - AT_EQUAL_LENGTH > 0.08, "length helps the model"
    assert controlled(range(400)) == pytest.approx(AT_EQUAL_LENGTH, abs=0.02)


def test_instructions_are_matched_by_themselves_and_never_by_their_row() -> None:
    expected = pytest.approx(controlled(range(400)), abs=0.002)
    assert controlled(np.random.default_rng(3).permutation(400).tolist()) == expected
    assert controlled(range(1, 400)) == expected


def test_an_instruction_of_another_benchmark_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"1 of 2 instructions have no .*'What is love"):
        length_controlled(
            ["instruction 1", "What is love?"], [0.5, 0.5], ([1, 2], [2, 1]), PUBLISHED
        )


def test_the_interval_of_the_length_controlled_rate_knows_the_prompts() -> None:
    names, p, base, own = simulated(400, seed=2)
    found = length_controlled(names, p, (base, own), PUBLISHED, resamples=100)
    assert found.low < AT_EQUAL_LENGTH < found.high
    assert 0.02 < found.high - found.low < 0.08
    assert found.n == 400


def test_the_length_adjusted_rate_needs_no_published_data() -> None:
    draw = np.random.default_rng(4)
    a, b = draw.integers(100, 3000, 600), draw.integers(100, 1500, 600)
    delta = a - b
    p = sigmoid(1.2 * np.tanh(delta / delta.std(ddof=1)) - 0.4)
    won = (draw.random(600) < p).astype(float).tolist()
    found = length_adjusted(won, (a.tolist(), b.tolist()), resamples=200)
    assert found.low < float(sigmoid(np.array([-0.4]))[0]) < found.high
    assert found.value < np.mean(won) - 0.08
    assert found.high - found.low < 0.12


@pytest.mark.parametrize(("p", "rate"), [([1.0] * 30, 1.0), ([0.0] * 30, 0.0), ([0.5] * 30, 0.5)])
def test_an_adjusted_rate_where_nothing_is_left_to_fit(p: list[float], rate: float) -> None:
    lengths = list(range(100, 130))
    for other in (lengths, [each + 50 for each in lengths], lengths[::-1]):
        found = length_adjusted(p, (lengths, other), resamples=20)
        assert found.value == pytest.approx(rate, abs=1e-3)
        assert found.high - found.low > 0.1, "30 prompts do not make it certain"


@pytest.mark.parametrize("won", [0.0, 1.0])
def test_winning_always_at_any_length_or_style_does_not_prove_the_next_win(won: float) -> None:
    draw = np.random.default_rng(5)
    lengths = ([int(each) for each in draw.integers(1, 9000, 10)], [1000] * 10)
    styled = [Battle(i, won, 1, (draw.random(), draw.random(), 0.0, 0.0)) for i in range(10)]
    for found in (
        length_adjusted([won] * 10, lengths, resamples=50),
        style_controlled(styled, resamples=50),
    ):
        assert found.value == pytest.approx(won, abs=1e-3)
        assert found.high - found.low == pytest.approx(0.278, abs=2e-3), "as Wilson's of 10 of 10"


def test_the_style_of_an_answer_is_what_a_reader_sees() -> None:
    text = (
        "# Head\n\n## Second\n#no header\n- one\n * two\n1. three\n**bold** and __bold__\n"
        "```python\n# a comment, no header\n- no list\n**no**\n```\n"
    )
    found = style_of(text, tokens=40)
    assert (found.tokens, found.headers, found.lists, found.bold) == (40, 2, 3, 2)
    assert style_difference(found, found) == (0, 0, 0, 0)
    assert style_difference(style_of("", 0), style_of("", 0)) == (0, 0, 0, 0)
    longer = style_difference(style_of("a", 30), style_of("a", 10))
    assert longer == (0.5, 0, 0, 0)
    listed = style_difference(style_of("- a", 9), style_of("a", 9))
    assert listed == pytest.approx((0, 0, 0.1 / 1.1, 0))


def test_a_clear_win_counts_three_times() -> None:
    same = (0.0, 0.0, 0.0, 0.0)
    battles = [
        Battle("a", 1.0, 3, same),
        Battle("a", 0.0, 1, same),
        Battle("b", 0.5, 1, same),
        Battle("b", 0.5, 1, same),
    ]
    found = battle_rate(battles, resamples=50)
    assert (found.value, found.n) == (4 / 6, 2)
    assert (found.low, found.high) == (0.5, 0.75)
    assert style_controlled(battles, resamples=5).value == pytest.approx(4 / 6, abs=1e-3)


@pytest.mark.parametrize("n", [1, 2, 6])
def test_the_same_difference_of_battles_at_every_prompt_still_has_an_interval(n: int) -> None:
    same = (0.0, 0.0, 0.0, 0.0)
    ours, theirs = ([Battle(i, won, 1, same) for i in range(n)] for won in (1.0, 0.0))
    found = battle_difference(ours, theirs, resamples=20)
    assert (found.value, found.high, found.n) == (1, 1, n)
    assert found.low == pytest.approx(binary_difference([True] * n, [False] * n).low)


def test_style_control_finds_the_rate_at_the_baseline_s_own_style() -> None:
    """Every answer of the model is longer than the baseline's: centred features would miss it."""
    found = [
        style_controlled(battles_of(seed, styles(seed)), resamples=2).value for seed in range(8)
    ]
    raw = [battle_rate(battles_of(seed, styles(seed)), resamples=2).value for seed in range(8)]
    assert np.mean(raw) - true_rate() > 0.15, "style helps the model"
    assert np.mean(found) == pytest.approx(true_rate(), abs=0.02)


def styles(seed: int) -> Array:
    draw = np.random.default_rng(seed + 100)
    length = np.clip(draw.normal(0.25, 0.25, 500), -0.95, 0.95)
    return np.column_stack([length, draw.normal(0.01, 0.02, (500, 3))])
