"""Means and paired differences, with standard errors that respect which items belong together.

Formulas: Miller, "Adding Error Bars to Evals" (arXiv 2411.00640); Agresti and Min, "Simple improved
confidence intervals for comparing matched proportions" (Statistics in Medicine, 2005).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from moaa.statistics.estimate import LEVEL, Estimate, normal, within
from moaa.statistics.rates import share
from moaa.statistics.spread import agresti_min, without_spread

Values = Sequence[float] | NDArray[np.float64]

NO_SPREAD = 1e-8
"""A smaller standard error is rounding: all clusters have the same mean."""


def standard_error(values: Values, clusters: Sequence[Hashable] | None = None) -> float:
    """Return the standard error of the mean of `values`; infinite for a single value or cluster.

    `clusters`: for each value what it belongs to (its conversation, its source). Values of one
    cluster may be similar, and together count less. Default: every value is its own cluster.
    """
    data = np.asarray(values, dtype=float)
    n = len(data)
    if clusters is None:
        return float(data.std(ddof=1) / math.sqrt(n)) if n > 1 else math.inf
    if len(clusters) != n:
        raise ValueError(f"{n} values, but {len(clusters)} clusters: each value needs one")
    sums: dict[Hashable, float] = {}
    for cluster, deviation in zip(clusters, data - data.mean(), strict=True):
        sums[cluster] = sums.get(cluster, 0.0) + float(deviation)
    if len(sums) < 2:
        return math.inf
    return math.sqrt(sum(each * each for each in sums.values())) / n


def mean(
    values: Values,
    clusters: Sequence[Hashable] | None = None,
    *,
    unit: str = "share",
    level: float = LEVEL,
) -> Estimate:
    """Return the mean of `values` with its normal interval, clustered as in `standard_error`.

    Values without any spread (ten right answers of ten) get the interval of `without_spread`: they
    do not prove that the next answer is right too.
    """
    n = len(values)
    independent = n if clusters is None else len(set(clusters))
    error = standard_error(values, clusters)
    return with_error(float(np.mean(values)), error, n, independent, unit, level)


def clustered_share(values: Values, clusters: Sequence[Hashable]) -> Estimate:
    """The share of ones among zeros and ones: with Wilson's interval if no two are of one cluster,
    else with a clustered one."""
    if len(set(clusters)) == len(clusters):
        return share(float(np.sum(values)), len(values))
    return mean(values, clusters)


def with_error(
    value: float, error: float, n: int, independent: int, unit: str, level: float
) -> Estimate:
    """The mean `value` of `n` values with its normal interval; that of `without_spread` over the
    `independent` clusters if all of them have the same mean."""
    if error < NO_SPREAD:
        return without_spread(value, n, independent, unit, level)
    return normal(value, error, n, unit, level)


def difference(
    a: Values,
    b: Values,
    clusters: Sequence[Hashable] | None = None,
    *,
    unit: str = "difference of shares",
    level: float = LEVEL,
) -> Estimate:
    """Return mean of `a` minus mean of `b`, where a[i] and b[i] are the scores of one and the same
    item.

    Paired: what makes an item hard for both models cancels out.
    """
    return mean(_differences(a, b), clusters, unit=unit, level=level)


def binary_difference(a: Sequence[bool], b: Sequence[bool], *, level: float = LEVEL) -> Estimate:
    """Return the share of true in `a` minus that in `b`, paired by item, with Agresti and Min's
    interval.

    The value is the plain difference. The interval adds half an item to each of the four cells, so
    that it is also right for few items, where nothing or everything differs.
    """
    differences = _differences(a, b)
    n, changed = len(differences), float(np.abs(differences).sum())
    net = float(differences.sum())
    low, high = agresti_min(net, changed, n, level)
    return within(net / n, low, high, n, "difference of shares", level)


def clustered_binary_difference(
    a: Sequence[bool], b: Sequence[bool], clusters: Sequence[Hashable]
) -> Estimate:
    """The share of true in `a` minus that in `b`, paired by item: with Agresti and Min's interval
    if no two items are of one cluster, else with a clustered one."""
    if len(set(clusters)) == len(clusters):
        return binary_difference(a, b)
    return difference(a, b, clusters)


def mcnemar(a: Sequence[bool], b: Sequence[bool]) -> float:
    """Return the exact two-sided p-value that `a` and `b` are equally often true, paired by item.

    Only items where they differ count; without a difference each is a fair coin.
    """
    differences = _differences(a, b)
    more, less = int((differences > 0).sum()), int((differences < 0).sum())
    n = more + less
    tail = sum(math.comb(n, k) for k in range(min(more, less) + 1)) / (1 << n)
    return min(1.0, 2 * tail)


def p_value(found: Estimate) -> float:
    """Return the two-sided p-value that the value is 0, from a normal interval."""
    if found.error == 0:
        return 1.0 if found.value == 0 else 0.0
    return 2 * NormalDist().cdf(-abs(found.value) / found.error)


def _differences(a: Values, b: Values) -> NDArray[np.float64]:
    if len(a) != len(b):
        raise ValueError(f"not paired: {len(a)} and {len(b)} scores; give one of each an item")
    return np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
