"""Estimates with their intervals: rates, paired differences, and the lengths of answers."""

from moaa.statistics.estimate import Estimate, normal, quantile
from moaa.statistics.lengths import lengths
from moaa.statistics.paired import binary_difference, difference, mcnemar, mean, standard_error
from moaa.statistics.rates import bootstrap, share, wilson, win_rates

__all__ = [
    "Estimate",
    "binary_difference",
    "bootstrap",
    "difference",
    "lengths",
    "mcnemar",
    "mean",
    "normal",
    "quantile",
    "share",
    "standard_error",
    "wilson",
    "win_rates",
]
