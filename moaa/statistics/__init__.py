"""What the judged answers of an evaluation say: win rates with their intervals, and how long the
answers are."""

from moaa.statistics.lengths import lengths
from moaa.statistics.rates import bootstrap, wilson, win_rates

__all__ = ["bootstrap", "lengths", "wilson", "win_rates"]
