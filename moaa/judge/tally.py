"""Facts about the judge from many judgements: the criteria that it uses, and its position bias."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from moaa.judge.criteria import CRITERIA
from moaa.judge.judgement import Judgement
from moaa.statistics import RunningMean, with_ends


@dataclass(slots=True)
class Tally:
    """Counts judgements one by one without keeping them:
    there may be 60,000, with all their texts."""

    first_wins: RunningMean = field(default_factory=RunningMean)
    first_p: RunningMean = field(default_factory=RunningMean)
    disagree: RunningMean = field(default_factory=RunningMean)
    hard: int = 0
    criteria: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(CRITERIA, 0)))
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Missing assessments, by proposer and reason."""
    cut: Counter[str] = field(default_factory=Counter)
    """Assessments that were cut at max_tokens, by proposer."""
    lost: Counter[str] = field(default_factory=Counter)
    """Orders that could not be judged, by reason."""
    asked_again: int = 0

    @property
    def verdicts(self) -> int:
        """Return how many single verdicts there are, of one order each."""
        return self.first_wins.n

    def add(self, *judgements: Judgement) -> None:
        """Count the judgements of one prompt: they may be alike, and intervals know that. A tie
        that no model was asked about does not count."""
        for judgement in judgements:
            self._count(judgement)
        orders = [order for judgement in judgements for order in judgement.orders]
        self.first_wins.add(order.wins_first for order in orders)
        self.first_p.add(order.p for order in orders)
        self.disagree.add(float(each.disagree) for each in judgements if len(each.orders) == 2)

    def _count(self, judgement: Judgement) -> None:
        self.lost.update(lost.reason for lost in judgement.lost)
        self.asked_again += judgement.asked_again
        if not judgement.orders:
            return
        self.criteria.update(judgement.criteria)
        for order in judgement.orders:
            self.hard += not order.soft
            self.left_out.update((gone.name, gone.reason) for gone in order.left_out)
            self.cut.update(a.name for a in order.assessments if a.finish_reason == "length")

    def facts(self) -> dict[str, Any]:
        """Return the facts for the report. Shares come with the ends of their 95 % intervals
        (`first_wins_low`, `first_wins_high`, …), clustered by prompt; they are None if nothing was
        judged.

        criteria        {name: pairs it was used for}, all eight
        position_bias   `first_wins`: share of verdicts for the answer shown first (a tie is half);
                        `first_mean_p`: mean probability that it is better (both 0.5 without bias);
                        `verdicts`: how many; `hard`: those that are only 0 or 1
        disagreement    share of pairs whose two orders prefer different answers
        pairs_in_both_orders    how many pairs that share is of
        """
        return {
            "criteria": dict(self.criteria),
            "position_bias": {
                **with_ends("first_wins", self.first_wins.estimate()),
                **with_ends("first_mean_p", self.first_p.estimate()),
                "verdicts": self.verdicts,
                "hard": self.hard,
            },
            **with_ends("disagreement", self.disagree.estimate()),
            "pairs_in_both_orders": self.disagree.n,
        }
