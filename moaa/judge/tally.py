"""Facts about the judge from many judgements: the criteria that it uses, and its position bias."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from moaa.judge.criteria import CRITERIA
from moaa.judge.judgement import Judgement


@dataclass(slots=True)
class Tally:
    """Counts judgements one by one without keeping them: there may be 60,000, with all their
    texts."""

    pairs: int = 0
    verdicts: int = 0
    first_wins: int = 0
    first_p: float = 0.0
    hard: int = 0
    disagreements: int = 0
    criteria: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(CRITERIA, 0)))
    left_out: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Missing assessments, by proposer and reason."""
    cut: Counter[str] = field(default_factory=Counter)
    """Assessments that were cut at max_tokens, by proposer."""
    lost: Counter[str] = field(default_factory=Counter)
    """Orders that could not be judged, by reason."""
    asked_again: int = 0

    def add(self, judgement: Judgement) -> None:
        """Count one judgement. A tie for which no model was asked does not count."""
        self.lost.update(lost.reason for lost in judgement.lost)
        self.asked_again += judgement.asked_again
        if not judgement.orders:
            return
        self.pairs += len(judgement.orders) == 2
        self.disagreements += judgement.disagree
        self.criteria.update(judgement.criteria)
        for order in judgement.orders:
            self.verdicts += 1
            self.first_wins += order.verdict == "A"
            self.first_p += order.p
            self.hard += not order.soft
            self.left_out.update((gone.name, gone.reason) for gone in order.left_out)
            self.cut.update(a.name for a in order.assessments if a.finish_reason == "length")

    def facts(self) -> dict[str, Any]:
        """Return the facts for the report. Shares are None if nothing was judged.

        criteria        {name: pairs it was used for}, all eight
        position_bias   `first_wins`: share of verdicts for the answer shown first;
                        `first_mean_p`: mean probability that it is better (both 0.5 without bias);
                        `verdicts`: how many; `hard`: those that are only 0 or 1
        disagreement    share of pairs whose two orders prefer different answers
        """
        return {
            "criteria": dict(self.criteria),
            "position_bias": {
                "first_wins": self.first_wins / self.verdicts if self.verdicts else None,
                "first_mean_p": self.first_p / self.verdicts if self.verdicts else None,
                "verdicts": self.verdicts,
                "hard": self.hard,
            },
            "disagreement": self.disagreements / self.pairs if self.pairs else None,
        }
