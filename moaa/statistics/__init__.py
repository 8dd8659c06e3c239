"""Every number of a report with its interval: rates, paired differences, fitted win rates, power.

Pure functions on numbers. The type of a result is `Estimate`.
"""

from moaa.statistics.estimate import LEVEL, Estimate, normal, pooled, quantile, with_ends
from moaa.statistics.length_control import FEWEST, Difficulties, length_adjusted, length_controlled
from moaa.statistics.lengths import characters, lengths
from moaa.statistics.logistic import logistic
from moaa.statistics.multiple import holm
from moaa.statistics.paired import (
    binary_difference,
    clustered_binary_difference,
    clustered_share,
    difference,
    mcnemar,
    mean,
    p_value,
    standard_error,
)
from moaa.statistics.power import WIN_SD, detectable_difference, paired_sd, power_of, required_n
from moaa.statistics.rates import share, wilson
from moaa.statistics.resampling import resample
from moaa.statistics.running import RunningMean
from moaa.statistics.style import (
    Battle,
    Style,
    battle_difference,
    battle_rate,
    style_controlled,
    style_difference,
    style_of,
)

__all__ = [
    "FEWEST",
    "LEVEL",
    "WIN_SD",
    "Battle",
    "Difficulties",
    "Estimate",
    "RunningMean",
    "Style",
    "battle_difference",
    "battle_rate",
    "binary_difference",
    "characters",
    "clustered_binary_difference",
    "clustered_share",
    "detectable_difference",
    "difference",
    "holm",
    "length_adjusted",
    "length_controlled",
    "lengths",
    "logistic",
    "mcnemar",
    "mean",
    "normal",
    "p_value",
    "paired_sd",
    "pooled",
    "power_of",
    "quantile",
    "required_n",
    "resample",
    "share",
    "standard_error",
    "style_controlled",
    "style_difference",
    "style_of",
    "wilson",
    "with_ends",
]
