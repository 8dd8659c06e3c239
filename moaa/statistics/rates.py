"""Shares, such as win rates, with their confidence intervals."""

from __future__ import annotations

import math

from moaa.statistics.estimate import LEVEL, Estimate, quantile

Z = 1.959964
"""Standard normal quantile of a 95 % interval."""


def wilson(wins: float, n: float, z: float = Z) -> tuple[float, float]:
    """Return the Wilson score interval of a share; ties count half a win.
    (0, 1) if nothing was judged."""
    if n == 0:
        return 0.0, 1.0
    share = wins / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def share(wins: float, n: int, level: float = LEVEL) -> Estimate:
    """Return the share `wins / n` with its Wilson interval; ties count half a win.

    Raises ValueError if nothing was judged (n is 0).
    """
    if n < 1:
        raise ValueError("a share of no items: nothing was judged")
    low, high = wilson(wins, n, quantile(level))
    return Estimate(wins / n, low, high, n, "share", level)
