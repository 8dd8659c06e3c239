"""One number of a report, with its interval, the number of its items, and its unit."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist

LEVEL = 0.95
"""The default level: how often an interval contains the true value."""

RANGES = {
    "share": (0.0, 1.0),
    "difference of shares": (-1.0, 1.0),
    "rating": (1.0, 10.0),
    "difference of ratings": (-9.0, 9.0),
    "bits": (0.0, 1.0),
    "tokens": (0.0, math.inf),
    "characters": (0.0, math.inf),
}
"""Units whose values are limited: an interval does not leave the range."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value with its interval `low` to `high`. Every number of an evaluation has this form.

    `n` counts its items (prompts, pairs, questions). `unit` says what the value is: `share` (0 to
    1), `difference of shares` (-1 to 1), `rating`, `difference of ratings`, `ratio`, or another
    noun. `level` is how often such an interval contains the true value.
    """

    value: float
    low: float
    high: float
    n: int
    unit: str = "share"
    level: float = LEVEL

    def __post_init__(self) -> None:
        """Check the numbers. Raises ValueError for a missing number,
        low above high, or no items."""
        if not self.low <= self.high or math.isnan(self.value) or self.n < 1:
            raise ValueError(
                f"not an estimate: {self.value} from {self.low} to {self.high} over {self.n} items"
            )

    @property
    def error(self) -> float:
        """The standard error that gives this interval. If an end was cut at the range of the unit,
        the longer side tells it: both sides together would be too short."""
        first, last = range_of(self.unit)
        if self.low <= first or self.high >= last:
            return max(self.high - self.value, self.value - self.low) / quantile(self.level)
        return (self.high - self.low) / 2 / quantile(self.level)

    def scaled(self, factor: float, unit: str) -> Estimate:
        """Return the same in another unit: one old unit is `factor` new units (above 0)."""
        return Estimate(
            self.value * factor, self.low * factor, self.high * factor, self.n, unit, self.level
        )


def normal(
    value: float, error: float, n: int, unit: str = "share", level: float = LEVEL
) -> Estimate:
    """Return the estimate with a normal interval: `value` plus and minus z standard errors, within
    the range of its unit. An infinite error gives the whole range."""
    half = quantile(level) * error
    return within(value, value - half, value + half, n, unit, level)


def within(
    value: float, low: float, high: float, n: int, unit: str, level: float = LEVEL
) -> Estimate:
    """Return the estimate with the interval `low` to `high`, cut at the range of the unit."""
    first, last = range_of(unit)
    return Estimate(value, min(max(low, first), last), max(min(high, last), first), n, unit, level)


def range_of(unit: str) -> tuple[float, float]:
    """Return the smallest and the largest value of a unit; infinite if it is not limited."""
    return RANGES.get(unit, (-math.inf, math.inf))


def pooled(parts: Iterable[tuple[float, Estimate]]) -> tuple[float, float, int]:
    """Return value, standard error and number of items of the weighted mean of independent parts.
    Each part is a weight and an estimate."""
    given = list(parts)
    total = sum(weight for weight, _ in given)
    value = sum(weight * each.value for weight, each in given) / total
    error = math.sqrt(sum((weight * each.error) ** 2 for weight, each in given)) / total
    return value, error, sum(each.n for _, each in given)


def with_ends(name: str, found: Estimate | None) -> dict[str, float | None]:
    """The value under `name`, and the ends of its interval under `NAME_low` and `NAME_high`. An end
    that is not known (of a single prompt) is None, as JSON has no infinity; so is everything if
    nothing was found."""
    if found is None:
        return {name: None, f"{name}_low": None, f"{name}_high": None}
    low, high = (end if math.isfinite(end) else None for end in (found.low, found.high))
    return {name: found.value, f"{name}_low": low, f"{name}_high": high}


def quantile(level: float) -> float:
    """Return how many standard errors a two-sided interval of this level reaches: 1.96 for 0.95."""
    return NormalDist().inv_cdf((1 + level) / 2)
