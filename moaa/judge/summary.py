"""What many judgements say about the judge itself: the criteria it uses, and how far position sways it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from moaa.judge.criteria import CRITERIA
from moaa.judge.judgement import Judgement


def summary(judgements: Iterable[Judgement]) -> dict[str, Any]:
    """Facts about the judge, for the report.

    criteria        {name: pairs it was used for}, all eight
    position_bias   `first_wins`: share of single verdicts for the answer shown first; `first_mean_p`: mean probability
                    that it is better (0.5 each without bias); `verdicts`: how many; `hard`: those without log-probabilities
    disagreement    share of pairs whose two orders prefer different answers
    """
    criteria: Counter[str] = Counter(dict.fromkeys(CRITERIA, 0))
    pairs = verdicts = first_wins = hard = disagreements = 0
    first_p = 0.0
    for judgement in judgements:
        if not judgement.orders:
            continue  # a tie that no model was asked about
        pairs += 1
        disagreements += judgement.disagree
        criteria.update(judgement.criteria)
        for order in judgement.orders:
            verdicts += 1
            first_wins += order.verdict == "A"
            first_p += order.p
            hard += not order.soft
    return {
        "criteria": dict(criteria),
        "position_bias": {
            "first_wins": first_wins / verdicts if verdicts else None,
            "first_mean_p": first_p / verdicts if verdicts else None,
            "verdicts": verdicts,
            "hard": hard,
        },
        "disagreement": disagreements / pairs if pairs else None,
    }
