"""The mixture of judges: which of two answers is better, and how much (paper, stage 2).

compare      one pair, judged in both orders: criteria, then assessments, then a verdict, each asked of models
tournament   all pairs of several answers at the same time
Judgement    the outcome of a pair, with all that led to it
summary      criteria frequencies, position bias and disagreement over many judgements; Tally counts them one by one
"""

from moaa.judge.compare import check_instructions, compare, tournament
from moaa.judge.criteria import CRITERIA, TRIPLES
from moaa.judge.judgement import Judgement, Order, tie
from moaa.judge.summary import Tally, summary

__all__ = [
    "CRITERIA",
    "TRIPLES",
    "Judgement",
    "Order",
    "Tally",
    "check_instructions",
    "compare",
    "summary",
    "tie",
    "tournament",
]
