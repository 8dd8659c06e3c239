"""The mixture of judges: which of two answers is better, and how much (paper, stage 2).

compare      one pair in both orders: models pick criteria, write assessments, give a verdict
tournament   all pairs of several answers at the same time
Judgement    the outcome of a pair, with all that led to it
Tally        criteria frequencies, position bias and disagreement over many judgements
"""

from moaa.judge.compare import check_instructions, compare, tournament
from moaa.judge.criteria import CRITERIA, TRIPLES
from moaa.judge.judgement import Judgement, Lost, Order, tie
from moaa.judge.tally import Tally

__all__ = [
    "CRITERIA",
    "TRIPLES",
    "Judgement",
    "Lost",
    "Order",
    "Tally",
    "check_instructions",
    "compare",
    "tie",
    "tournament",
]
