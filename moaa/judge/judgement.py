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
class Judgement:
    """Answers `a` and `b` (indices), judged in both orders. Every p is the probability that *a* is
    better."""

    a: int
    b: int
    p: float
    """Mean of both orders: the soft preference."""
    p_ab: float
    """With a shown first."""
    p_ba: float
    """With b shown first."""
    orders: tuple[Order, ...]

    @property
    def criteria(self) -> tuple[str, ...]:
        """The criteria used in either order: three, unless each order picked its own or all were
        used."""
        return tuple(dict.fromkeys(name for order in self.orders for name in order.criteria))

    @property
    def disagree(self) -> bool:
        """Whether the two orders prefer different answers: the verdict followed the position."""
        return len({order.verdict for order in self.orders}) == 1

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
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Judgement:
        """The judgement that `to_json` gave."""
        orders = tuple(Order.from_json(order) for order in data["orders"])
        return cls(data["a"], data["b"], data["p"], data["p_ab"], data["p_ba"], orders)


def merged(ab: Order, ba: Order) -> Judgement:
    """The judgement of a pair from its two orders. `ab` showed answer a first."""
    p_ab, p_ba = ab.p, 1 - ba.p
    return Judgement(ab.first, ab.second, (p_ab + p_ba) / 2, p_ab, p_ba, (ab, ba))


def tie(a: int = 0, b: int = 1) -> Judgement:
    """The judgement of two identical answers. No model is asked."""
    return Judgement(a, b, 0.5, 0.5, 0.5, ())
