"""Intervals of values without any spread: all items, or all clusters, have the same value.

Their standard error is 0, which says that the number is certain. Two items do not prove that.
"""

from __future__ import annotations

import math

from moaa.statistics.estimate import Estimate, normal, quantile, range_of, within
from moaa.statistics.rates import wilson


def without_spread(value: float, n: int, independent: int, unit: str, level: float) -> Estimate:
    """Return the estimate of `n` values of which `independent` clusters have the same mean `value`.

    A share gets Wilson's interval, a difference of shares Agresti and Min's: both for as many items
    as there are clusters. A value at an end of its range (only the best ratings) is like a share of
    0 or 1 and gets Wilson's too. Any other interval has no width.
    """
    first, last = range_of(unit)
    if unit == "difference of shares":
        net, squares = value * independent, value * value * independent
        return within(value, *agresti_min(net, squares, independent, level), n, unit, level)
    if unit == "share" or (value in (first, last) and math.isfinite(last)):
        size = last - first
        share = (value - first) / size
        ends = wilson(share * independent, independent, quantile(level))
        low, high = (first + size * end for end in ends)
        return Estimate(value, min(low, value), max(high, value), n, unit, level)
    return normal(value, 0.0, n, unit, level)


def agresti_min(net: float, squares: float, n: int, level: float) -> tuple[float, float]:
    """Return Agresti and Min's interval of the mean of `n` paired differences from -1 to 1. `net`
    is their sum, `squares` the sum of their squares."""
    middle = net / (n + 2)
    half = quantile(level) * math.sqrt(squares + 1 - net * net / (n + 2)) / (n + 2)
    return middle - half, middle + half
