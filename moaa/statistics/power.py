"""What an evaluation can show: the smallest difference that it detects, and the items it needs.

Everything is for a mean over `n` items with standard deviation `sd`. The mean may be a win rate
minus 0.5, or a paired difference. Formulas: Miller, "Adding Error Bars to Evals" (arXiv
2411.00640).

Superiority: two-sided; `difference` is what one hopes to show. Non-inferiority ("not worse by more
than a margin"): `one_sided=True`; `difference` is from the truth down to the margin, so it is the
margin itself if the models are equal.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final

from moaa.statistics.estimate import LEVEL

POWER = 0.8
"""The default power: how often a true difference is found."""
WIN_SD: Final = 0.5
"""The standard deviation of a prompt's result if a win counts 1 and a loss 0, at a rate near one
half. Ties make it smaller, so it asks for too many prompts rather than too few."""


def detectable_difference(
    n: int, sd: float, *, power: float = POWER, level: float = LEVEL, one_sided: bool = False
) -> float:
    """Return the smallest true difference that `n` items show with this power."""
    return _reach(power, level, one_sided) * sd / math.sqrt(n)


def required_n(
    difference: float,
    sd: float,
    *,
    power: float = POWER,
    level: float = LEVEL,
    one_sided: bool = False,
) -> int:
    """Return the number of items that show a true `difference` (not 0) with this power."""
    return max(1, math.ceil((_reach(power, level, one_sided) * sd / difference) ** 2))


def power_of(
    n: int, sd: float, difference: float, *, level: float = LEVEL, one_sided: bool = False
) -> float:
    """Return the power of `n` items: how often they show a true `difference`, from 0 to 1."""
    if sd == 0:
        return 1.0 if difference > 0 else 0.0
    return NormalDist().cdf(difference * math.sqrt(n) / sd - _reach(0.5, level, one_sided))


def paired_sd(changed: float, net: float = 0.0) -> float:
    """Return the standard deviation of the paired difference of two right-or-wrong scores.

    `changed` is the share of items on which the two models differ, `net` the difference of their
    shares.
    """
    return math.sqrt(changed - net * net)


def _reach(power: float, level: float, one_sided: bool) -> float:
    """Return how many standard errors a difference must have to be shown with this power."""
    chance = level if one_sided else (1 + level) / 2
    return NormalDist().inv_cdf(chance) + NormalDist().inv_cdf(power)
