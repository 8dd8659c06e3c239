"""How much better than the base: differences that are paired by question."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import TypeVar

from moaa import statistics
from moaa.benchmarks.benchmark import Score
from moaa.recipe.evaluation import BASE
from moaa.statistics import Estimate

V = TypeVar("V")
Q = TypeVar("Q", bound=Hashable)


def base_of(entrants: Sequence[str]) -> str:
    """Return who the others are compared with: the base, or the first one if it is not measured."""
    return BASE if BASE in entrants else next(iter(entrants), "")


def to_base(
    metric: str,
    values: Mapping[str, Mapping[Q, V]],
    difference: Callable[[Sequence[Q], Sequence[V], Sequence[V]], Estimate],
) -> list[Score]:
    """Return `METRIC difference` of each entrant to the base, over the questions of both.

    `values` maps an entrant to its value of each question; `difference` gets the questions, and the
    values of the entrant and of the base. What makes a question hard for both cancels out, so the
    interval is narrower than that of two rates side by side.
    """
    base = base_of(list(values))
    found = []
    for name, ours in values.items():
        theirs = values[base]
        both = [question for question in ours if question in theirs]
        if name != base and both:
            estimate = difference(both, [ours[q] for q in both], [theirs[q] for q in both])
            found.append(Score(name, f"{metric} difference", estimate, against=base))
    return found


def of_means(
    questions: Sequence[Hashable], ours: Sequence[float], theirs: Sequence[float]
) -> Estimate:
    """The difference of two mean win rates, for `to_base`."""
    return statistics.difference(ours, theirs)
