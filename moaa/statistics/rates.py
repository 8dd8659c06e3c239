"""Win rates of one model against another, with their confidence intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moaa.statistics.estimate import LEVEL, Estimate, quantile

Z = 1.959964
"""Standard normal quantile of a 95 % interval."""


def wilson(wins: float, n: float, z: float = Z) -> tuple[float, float]:
    """The Wilson score interval of a share; ties count half a win. (0, 1) if nothing was judged."""
    if n == 0:
        return 0.0, 1.0
    share = wins / n
    middle = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(
    values: Sequence[float], *, resamples: int = 2000, seed: int = 0
) -> tuple[float, float]:
    """The 95 % percentile interval of the mean of `values`. Equal values and seed give equal
    results."""
    data = np.asarray(values, dtype=float)
    draw = np.random.default_rng(seed)
    means = [data[draw.integers(0, len(data), len(data))].mean() for _ in range(resamples)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def win_rates(judgements: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row for each pair of models in `judgements`.

    `judgements` are rows with `model_a`, `model_b`, and the probability `p` that a's answer is
    better. Rows without p, which could not be judged in both orders, do not count. p > 0.5 is a
    win, p = 0.5 a tie. `rate` counts a tie as half a win and has the Wilson interval `low` to
    `high`; `soft` is the mean of p and has the bootstrap interval `soft_low` to `soft_high`.
    """
    found: dict[tuple[str, str], list[float]] = {}
    for row in judgements:
        known = found.setdefault((row["model_a"], row["model_b"]), [])
        if row["p"] is not None:
            known.append(row["p"])
    return [_rates(model, against, p) for (model, against), p in found.items() if p]


def _rates(model: str, against: str, p: list[float]) -> dict[str, Any]:
    n, wins, ties = len(p), sum(each > 0.5 for each in p), sum(each == 0.5 for each in p)
    low, high = wilson(wins + ties / 2, n)
    soft_low, soft_high = bootstrap(p)
    return {
        "model": model,
        "against": against,
        "wins": wins,
        "ties": ties,
        "n": n,
        "rate": (wins + ties / 2) / n,
        "low": low,
        "high": high,
        "soft": sum(p) / n,
        "soft_low": soft_low,
        "soft_high": soft_high,
    }


def share(wins: float, n: int, level: float = LEVEL) -> Estimate:
    """The share `wins / n` with its Wilson interval; ties count half a win.

    Raises ValueError if nothing was judged (n is 0).
    """
    if n < 1:
        raise ValueError("a share of no items: nothing was judged")
    low, high = wilson(wins, n, quantile(level))
    return Estimate(wins / n, low, high, n, "share", level)
