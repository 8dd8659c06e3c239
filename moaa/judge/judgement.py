"""The result of judging a pair of answers, as plain data for the tables of judgements."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moaa.mixture import LeftOut, Proposal


def hard_win(p: float) -> float:
    """Return what a probability to win says as a verdict: 1 for a win, 0 for a loss, 0.5 for a
    tie."""
    return ((p > 0.5) + (p >= 0.5)) / 2


@dataclass(frozen=True, slots=True)
class Order:
    """One order of a pair: which answer was shown first, the assessments, and the verdict."""

    first: int
    second: int
    criteria: tuple[str, ...]
    assessments: tuple[Proposal, ...]
    left_out: tuple[LeftOut, ...]
    verdict: str
    """A: the answer shown first is better; B: the second."""
    p: float
    """Probability that the answer shown first is better."""
    soft: bool
    """Whether `p` comes from log-probabilities. Without them `p` is 0 or 1."""
    text: str
    """What the aggregator wrote."""

    @property
    def wins_first(self) -> float:
        """1 if the answer shown first is better, 0 if the second is, 0.5 for a tie."""
        return hard_win(self.p)

    def to_json(self) -> dict[str, Any]:
        """Return the order as an entry of `orders` in a judgement's row."""
        return {
            "first": self.first,
            "second": self.second,
            "criteria": list(self.criteria),
            "assessments": [
                {"name": a.name, "model": a.model, "text": a.text, "finish_reason": a.finish_reason}
                for a in self.assessments
            ],
            "left_out": [missing.to_json() for missing in self.left_out],
            "verdict": self.verdict,
            "p": self.p,
            "soft": self.soft,
            "text": self.text,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Order:
        """Return the order that `to_json` was made from."""
        return cls(
            first=data["first"],
            second=data["second"],
            criteria=tuple(data["criteria"]),
            assessments=tuple(
                Proposal(a["name"], a["model"], 0, a["text"], a["finish_reason"])
                for a in data["assessments"]
            ),
            left_out=tuple(
                LeftOut(missing["name"], missing["layer"], missing["reason"])
                for missing in data["left_out"]
            ),
            verdict=data["verdict"],
            p=data["p"],
            soft=data["soft"],
            text=data["text"],
        )


@dataclass(frozen=True, slots=True)
class Lost:
    """An order that could not be judged, and why."""

    first: int
    second: int
    reason: str
    detail: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return the entry of `lost` in a judgement's row."""
        return {
            "first": self.first,
            "second": self.second,
            "reason": self.reason,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """Answers `a` and `b` (indices), judged in both orders.
    Every p is the probability that *a* is better."""

    a: int
    b: int
    p_ab: float | None
    """The order with a shown first; None if it could not be judged."""
    p_ba: float | None
    """The order with b shown first; None if it could not be judged."""
    orders: tuple[Order, ...]
    """The orders that were judged."""
    lost: tuple[Lost, ...] = ()
    """The orders that could not be judged."""
    asked_again: int = 0
    """How many replies could not be read and were asked for again."""

    @property
    def p(self) -> float | None:
        """The mean of both orders: the soft preference. None unless both were judged: a single
        order shows mostly which answer came first."""
        return None if self.p_ab is None or self.p_ba is None else (self.p_ab + self.p_ba) / 2

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest p that the missing orders allow."""
        known = [p for p in (self.p_ab, self.p_ba) if p is not None]
        return sum(known) / 2, (sum(known) + (2 - len(known))) / 2

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria used in either order: three, unless each order picked its own
        or all were used."""
        return tuple(dict.fromkeys(name for order in self.orders for name in order.criteria))

    @property
    def disagree(self) -> bool:
        """Whether the two orders prefer different answers: the verdict followed the position. A tie
        prefers none."""
        shown_first = [order.wins_first for order in self.orders]
        return shown_first in ([1.0, 1.0], [0.0, 0.0])

    def to_json(self) -> dict[str, Any]:
        """Return the judgement as a row of the table `judgements`."""
        return {
            "a": self.a,
            "b": self.b,
            "p": self.p,
            "p_ab": self.p_ab,
            "p_ba": self.p_ba,
            "criteria": list(self.criteria),
            "orders": [order.to_json() for order in self.orders],
            "lost": [lost.to_json() for lost in self.lost],
            "asked_again": self.asked_again,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Judgement:
        """Return the judgement that `to_json` was made from.
        Rows of earlier versions have no lost orders."""
        return cls(
            data["a"],
            data["b"],
            data["p_ab"],
            data["p_ba"],
            tuple(Order.from_json(order) for order in data["orders"]),
            tuple(Lost(**lost) for lost in data.get("lost", ())),
            data.get("asked_again", 0),
        )


def merged(ab: Order | Lost, ba: Order | Lost, asked_again: int = 0) -> Judgement:
    """Return the judgement of a pair from its two orders. `ab` showed answer a first."""
    return Judgement(
        ab.first,
        ab.second,
        ab.p if isinstance(ab, Order) else None,
        1 - ba.p if isinstance(ba, Order) else None,
        tuple(order for order in (ab, ba) if isinstance(order, Order)),
        tuple(order for order in (ab, ba) if isinstance(order, Lost)),
        asked_again,
    )


def tie(a: int = 0, b: int = 1) -> Judgement:
    """Return the judgement of two identical answers. No model is asked."""
    return Judgement(a, b, 0.5, 0.5, ())
