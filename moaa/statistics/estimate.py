"""One number of a report: with its interval, how many items it rests on, and its unit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
"""How often an interval covers the truth, if nothing else is said."""

RANGES = {"share": (0.0, 1.0), "difference of shares": (-1.0, 1.0), "rating": (1.0, 10.0)}
"""Units whose values have ends: an interval does not leave them."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval `low` to `high`; every number of an evaluation comes as one.

    `n` counts the items that it rests on (prompts, pairs, questions). `unit` says what the value
    is: `share` (0 to 1), `difference of shares` (-1 to 1), `rating`, `ratio`, or another noun.
    `level` is how often such an interval covers the truth.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str = "share"
    level: float = LEVEL

    def __post_init__(self) -> None:
        """Raises ValueError for what no formula should give: a missing number, an interval upside
        down, no items."""
        if not self.low <= self.high or math.isnan(self.value) or self.n < 1:
            raise ValueError(
                f"not an estimate: {self.value} from {self.low} to {self.high} over {self.n} items"
            )

    @property
    def error(self) -> float:
        """The standard error, of a normal interval that was not cut."""
        return (self.high - self.low) / 2 / quantile(self.level)

    def scaled(self, factor: float, unit: str) -> Estimate:
        """The same in another unit: `factor` of the new unit (above 0) is one of the old."""
        return Estimate(
            self.value * factor, self.low * factor, self.high * factor, self.n, unit, self.level
        )


def normal(
    value: float, error: float, n: int, unit: str = "share", level: float = LEVEL
) -> Estimate:
    """The estimate with a normal interval: `value` plus and minus z standard errors, within the
    range of its unit. An infinite error gives the whole range."""
    half = quantile(level) * error
    return within(value, value - half, value + half, n, unit, level)


def within(
    value: float, low: float, high: float, n: int, unit: str, level: float = LEVEL
) -> Estimate:
    """The estimate whose interval is `low` to `high`, cut where the range of the unit ends."""
    first, last = RANGES.get(unit, (-math.inf, math.inf))
    return Estimate(value, min(max(low, first), last), max(min(high, last), first), n, unit, level)


def pooled(parts: Iterable[tuple[float, Estimate]]) -> tuple[float, float, int]:
    """Value, standard error and number of items of the weighted mean of independent parts; each is
    a weight and an estimate."""
    given = list(parts)
    total = sum(weight for weight, _ in given)
    value = sum(weight * each.value for weight, each in given) / total
    error = math.sqrt(sum((weight * each.error) ** 2 for weight, each in given)) / total
    return value, error, sum(each.n for _, each in given)


def quantile(level: float) -> float:
    """How many standard errors a two-sided interval of this level reaches: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)
