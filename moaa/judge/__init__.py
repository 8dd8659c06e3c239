"""The mixture of judges: which of two answers is better, and how much (paper, stage 2).

compare               one pair in both orders: criteria are picked, assessments written, a verdict
                      given
tournament            all pairs of several answers at the same time
adaptive_tournament   only the comparisons that the best and the worst answer depend on
Judgement             the result for a pair, with all texts that led to it
Tally                 criteria frequencies, position bias and disagreement over many judgements
"""

from moaa.judge.comparison import check_instructions, compare
from moaa.judge.criteria import CRITERIA, TRIPLES
from moaa.judge.judgement import Judgement, Lost, Order, hard_win, tie
from moaa.judge.tally import Tally
from moaa.judge.tournament import Adaptive, adaptive_tournament, rule_of, tournament

__all__ = [
    "CRITERIA",
    "TRIPLES",
    "Adaptive",
    "Judgement",
    "Lost",
    "Order",
    "Tally",
    "adaptive_tournament",
    "check_instructions",
    "compare",
    "hard_win",
    "rule_of",
    "tie",
    "tournament",
]
