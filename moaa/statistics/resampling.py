"""Intervals of statistics without a formula: computed again on resampled items (bootstrap)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from moaa.statistics.estimate import LEVEL, Estimate, within
from moaa.statistics.spread import without_spread

RESAMPLES = 1000
NO_SPREAD = 1e-3
"""A narrower interval comes from what all items have in common, not from their number."""

Fit = Callable[[NDArray[np.float64]], float]


def resample(
    fit: Fit,
    n: int,
    *,
    unit: str = "share",
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Return the statistic over `n` items, with its bootstrap percentile interval.

    `fit(counts)` returns the statistic if item i occurs counts[i] times. It is called once with
    ones for the value, and then for each resample. An item is what was drawn independently: the
    prompt, with all its orders and judges. The same input and seed give the same result. A value
    that is the same in all resamples (every prompt was won) gets the interval of `without_spread`.
    """
    value = fit(np.ones(n))
    draw = np.random.default_rng(seed)
    found = [
        fit(np.bincount(draw.integers(0, n, n), minlength=n).astype(np.float64))
        for _ in range(resamples)
    ]
    low, high = np.percentile(found, [50 * (1 - level), 50 * (1 + level)])
    if high - low < NO_SPREAD:
        return without_spread(value, n, n, unit, level)
    return within(value, float(low), float(high), n, unit, level)
