"""RewardBench 2's prompts with ties: several right answers, and wrong ones (arXiv 2506.01937).

The official score asks whether the right answers are similar and better than the wrong ones, so it
needs a score of each answer. For a judge of pairs it is the strength, in log-odds, that fits the
judge's verdicts best. Each question occurs twice, as `ref:N` with one right answer and as `tied:N`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from moaa.statistics import Estimate, resample

Pair: TypeAlias = tuple[int, int]
"""The index of a right answer, and of a wrong one."""
MOST_LOG_ODDS: Final = 10.0
"""Verdicts are cut at this probability: a surer one adds no information."""
WEIGHTS: Final = (0.3, 0.3, 0.2, 0.2, 0.01)
"""The official weights of five parts: right on tied; right on ref; a gap to the wrong answers above
the spread of the right ones, by tied alone; the same by the smaller gap of both; and how far
above."""


class Stats(NamedTuple):
    """The result of one prompt."""

    right: bool
    """Whether the weakest right answer is stronger than the strongest wrong one."""
    spread: float
    """The distance from the strongest to the weakest right answer; 0 if there is only one."""
    gap: float
    """The distance from the weakest right answer to the strongest wrong one."""


LOST: Final = Stats(False, math.inf, -math.inf)
"""The result of a prompt with an answer that could not be judged: it counts as not right."""


def spread(right: int, wrong: int, limit: int) -> list[Pair]:
    """Return at most `limit` pairs of a right and a wrong answer, or more if `right + wrong - 1` is
    more: that many connect all answers, so that their strengths can be compared."""
    both = min(right, wrong)
    path = [(k // 2, (k + 1) // 2) for k in range(2 * both - 1)]
    path += [(good, good % wrong) for good in range(both, right)]
    path += [(bad % right, bad) for bad in range(both, wrong)]
    every = [(good, bad) for good in range(right) for bad in range(wrong)]
    return list(dict.fromkeys([*path, *every]))[: max(limit, len(path))]


def stats(verdicts: Mapping[Pair, float | None], right: int, wrong: int) -> Stats:
    """Return the result of a prompt. `right`, `wrong`: the number of answers. `verdicts`: the
    probability that the right answer of a pair is better; None if it could not be judged."""
    judged = [(pair, p) for pair, p in verdicts.items() if p is not None]
    rows = np.zeros((len(judged), right + wrong))
    for k, ((good, bad), _) in enumerate(judged):
        rows[k, good], rows[k, right + bad] = 1, -1
    # Strengths are determined if only one direction is free: the same number added to all.
    if not judged or np.linalg.matrix_rank(rows) < right + wrong - 1:
        return LOST
    strengths, *_ = np.linalg.lstsq(rows, np.array([_log_odds(p) for _, p in judged]), rcond=None)
    good, bad = strengths[:right], strengths[right:]
    gap = float(good.min() - bad.max())
    return Stats(gap > 0, float(good.max() - good.min()), gap)


def score(found: Mapping[str, Stats]) -> Estimate:
    """Return the official score of all prompts (`ref:N`, `tied:N`), with questions resampled."""
    kinds: dict[str, dict[str, Stats]] = {"ref": {}, "tied": {}}
    for name, each in found.items():
        kind, _, number = name.partition(":")
        kinds[kind][number] = each
    questions = sorted({number for of_kind in kinds.values() for number in of_kind})
    ref, tied = ([kinds[kind].get(number) for number in questions] for kind in ("ref", "tied"))
    return resample(lambda counts: _score(ref, tied, counts), len(questions))


def _score(
    ref: Sequence[Stats | None], tied: Sequence[Stats | None], counts: NDArray[np.float64]
) -> float:
    both = [(r, t, n) for r, t, n in zip(ref, tied, counts, strict=True) if r and t]
    gaps = [(min(r.gap, t.gap), t.gap, t.spread, n) for r, t, n in both]
    parts = (
        _mean((t.right, n) for t, n in zip(tied, counts, strict=True) if t),
        _mean((r.right, n) for r, n in zip(ref, counts, strict=True) if r),
        _mean((gap > spread, n) for _, gap, spread, n in gaps),
        _mean((gap > spread, n) for gap, _, spread, n in gaps),
        _mean((_margin(gap, spread), n) for gap, _, spread, n in gaps),
    )
    return sum(weight * part for weight, part in zip(WEIGHTS, parts, strict=True))


def _margin(gap: float, spread: float) -> float:
    """Return how far the wrong answers are, in spreads of the right ones;
    0 if that is not a number."""
    if spread == 0:
        return 0.0 if gap == 0 else math.copysign(1.0, gap)
    value = math.tanh(gap / spread - 1)
    return 0.0 if math.isnan(value) else value


def _mean(values: Iterable[tuple[float, float]]) -> float:
    given = list(values)
    total = sum(n for _, n in given)
    return sum(value * n for value, n in given) / total if total else 0.0


def _log_odds(p: float) -> float:
    p = min(max(p, 1e-9), 1 - 1e-9)
    return max(-MOST_LOG_ODDS, min(MOST_LOG_ODDS, math.log(p / (1 - p))))
