"""A mean with its interval, from values that come cluster by cluster and are not kept."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from moaa.statistics.estimate import LEVEL, Estimate
from moaa.statistics.paired import with_error
from moaa.statistics.rates import share


@dataclass(slots=True)
class RunningMean:
    """The same result as `mean` for these values and clusters, from sums alone; the same as
    `clustered_share` if all of them are 0 or 1."""

    n: int = 0
    total: float = 0.0
    clusters: int = 0
    _binary: bool = True
    _totals_squared: float = 0.0
    _sizes_squared: float = 0.0
    _totals_by_size: float = 0.0

    def add(self, values: Iterable[float]) -> None:
        """Add the values of one cluster (a prompt, a pair): they may be similar."""
        own = list(values)
        if not own:
            return
        size, total = len(own), float(sum(own))
        self._binary = self._binary and all(value in (0, 1) for value in own)
        self.n += size
        self.total += total
        self.clusters += 1
        self._totals_squared += total * total
        self._sizes_squared += size * size
        self._totals_by_size += total * size

    def estimate(self, unit: str = "share", level: float = LEVEL) -> Estimate | None:
        """Return the mean with its clustered interval; None if there are no values."""
        if not self.n:
            return None
        if self._binary and self.n == self.clusters and unit == "share":
            return share(self.total, self.n, level)
        value = self.total / self.n
        if self.clusters < 2:
            return with_error(value, math.inf, self.n, self.clusters, unit, level)
        # The sum over clusters of (total - size * mean) squared.
        squares = (
            self._totals_squared
            - 2 * value * self._totals_by_size
            + value * value * self._sizes_squared
        )
        error = math.sqrt(max(squares, 0.0)) / self.n
        return with_error(value, error, self.n, self.clusters, unit, level)
