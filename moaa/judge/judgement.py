"""The outcome of judging a pair of answers: plain data, as the tables of judgements hold it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from moaa.mixture import LeftOut, Proposal


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
    """False if the engine gave no log-probabilities for the letter of the verdict: `p` is then 0 or
    1."""
    text: str
    """What the aggregator wrote."""

    def to_json(self) -> dict[str, Any]:
        """The order as `orders` of a judgement's row has it."""
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
        """The order that `to_json` gave."""
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
        """The entry of `lost` of a judgement's row."""
        return {
            "first": self.first,
            "second": self.second,
            "reason": self.reason,
            "detail": self.detail,
        }


@dataclass(frozen=True, slots=True)
class Judgement:
    """Answers `a` and `b` (indices), judged in both orders. Every p is the probability that *a* is
    better."""

    a: int
    b: int
    p_ab: float | None
    """With a shown first; None if that order could not be judged."""
    p_ba: float | None
    """With b shown first; None likewise."""
    orders: tuple[Order, ...]
    """Those that were judged."""
    lost: tuple[Lost, ...] = ()
    """Those that could not be judged."""
    asked_again: int = 0
    """How often a reply could not be read, and was asked for again."""

    @property
    def p(self) -> float | None:
        """Mean of both orders: the soft preference. None unless both were judged: one order alone
        shows mostly which answer stood first."""
        return None if self.p_ab is None or self.p_ba is None else (self.p_ab + self.p_ba) / 2

    @property
    def bounds(self) -> tuple[float, float]:
        """The lowest and the highest p that are possible, whatever the missing orders would say."""
        known = [p for p in (self.p_ab, self.p_ba) if p is not None]
        return sum(known) / 2, (sum(known) + (2 - len(known))) / 2

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria used in either order: three, unless each order picked its own or all were
        used."""
        return tuple(dict.fromkeys(name for order in self.orders for name in order.criteria))

    @property
    def disagree(self) -> bool:
        """Whether the two orders prefer different answers: the verdict followed the position."""
        return len(self.orders) == 2 and len({order.verdict for order in self.orders}) == 1

    def to_json(self) -> dict[str, Any]:
        """The judgement as a row of the table `judgements` has it."""
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
        """The judgement that `to_json` gave; earlier versions lost nothing."""
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
    """The judgement of a pair from its two orders. `ab` showed answer a first."""
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
    """The judgement of two identical answers. No model is asked."""
    return Judgement(a, b, 0.5, 0.5, ())
