"""Win rates with their intervals, and the lengths of answers."""

from moaa.statistics.lengths import lengths
from moaa.statistics.rates import bootstrap, wilson, win_rates

__all__ = ["bootstrap", "lengths", "wilson", "win_rates"]
