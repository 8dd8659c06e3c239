"""What the judged answers of an evaluation say: win rates with their intervals, and how long the answers are."""

from moaa.evaluate.lengths import lengths
from moaa.evaluate.rates import bootstrap, wilson, win_rates

__all__ = ["bootstrap", "lengths", "wilson", "win_rates"]
