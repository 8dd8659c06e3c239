"""Intervals of values without any spread: all items, or all clusters, have the same value.

Their standard error is 0, which says that the number is certain. Two items do not prove that.
"""

from __future__ import annotations

import math

from moaa.statistics.estimate import Estimate, normal, quantile, within
from moaa.statistics.rates import wilson


def without_spread(value: float, n: int, independent: int, unit: str, level: float) -> Estimate:
    """Return the estimate of `n` values of which `independent` clusters have the same mean `value`.

    A share gets Wilson's interval, a difference of shares Agresti and Min's: both for as many items
    as there are clusters. In another unit the interval has no width.
    """
    if unit == "share":
        low, high = wilson(value * independent, independent, quantile(level))
        return Estimate(value, low, high, n, unit, level)
    if unit == "difference of shares":
        net, squares = value * independent, value * value * independent
        return within(value, *agresti_min(net, squares, independent, level), n, unit, level)
    return normal(value, 0.0, n, unit, level)


def agresti_min(net: float, squares: float, n: int, level: float) -> tuple[float, float]:
    """Return Agresti and Min's interval of the mean of `n` paired differences from -1 to 1. `net`
    is their sum, `squares` the sum of their squares."""
    middle = net / (n + 2)
    half = quantile(level) * math.sqrt(squares + 1 - net * net / (n + 2)) / (n + 2)
    return middle - half, middle + half
