"""From judged pairs to a preference: the best answer is chosen,
the worst rejected (paper, stage 2)."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

from moaa.errors import RowRejected
from moaa.judge.judgement import Judgement

PRIOR = 0.1
"""The number of drawn pseudo-games of each answer against an answer of strength 1. They keep the
strength of an unbeaten answer finite."""

UNDECIDED = "depends on a missing verdict"
SAME = 1e-9
"""Soft wins that differ by less than this are equal."""


@dataclass(frozen=True, slots=True)
class Ranking:
    """Answers (indices) from best to worst, and the soft wins of each index."""

    order: tuple[int, ...]
    wins: tuple[float, ...]
    """The sum of p(better) over the pairs of the answer: 0 to n-1. An order that could not be
    judged counts as a tie."""
    low: tuple[float, ...]
    """The wins if every order that could not be judged had gone against the answer."""
    high: tuple[float, ...]
    """The wins if every one of them had gone for the answer."""

    def sure(self, better: int, worse: int) -> bool:
        """Return whether one answer is before the other, whatever the missing verdicts would be."""
        if all(self.low[i] == self.high[i] for i in (better, worse)):
            return self.order.index(better) < self.order.index(worse)
        return self.low[better] > self.high[worse] + SAME


@dataclass(frozen=True, slots=True)
class Pair:
    """The indices of the best and the worst answer, and the difference of their soft wins."""

    chosen: int
    rejected: int
    margin: float


def rank(
    n: int, judgements: Iterable[Judgement], expected: Mapping[tuple[int, int], float] | None = None
) -> Ranking:
    """Return the `n` answers by their soft wins; ties by Bradley-Terry strength, then by lower
    index.

    `expected`: for each order that an adaptive judge did not ask for, the probability that its
    first answer is better; it counts like a verdict. If every pair was judged equally often, equal
    wins mean equal strengths. So strengths are computed only if answers tie and pairs are missing.
    """
    judged = list(judgements)
    if expected:
        judged = _completed(n, judged, expected)
    wins, low, high = [0.0] * n, [0.0] * n, [0.0] * n
    for each in judged:
        least, most = each.bounds
        for index, lowest, highest in ((each.a, least, most), (each.b, 1 - most, 1 - least)):
            wins[index] += (lowest + highest) / 2
            low[index] += lowest
            high[index] += highest
    # Rounded: a sum in another order may differ slightly, which is not a preference.
    scores = [round(each, 9) for each in wins]
    tied = len(set(scores)) < n
    strengths = bradley_terry(n, judged) if tied and not _complete(n, judged) else [1.0] * n
    order = sorted(range(n), key=lambda i: (-scores[i], -round(strengths[i], 9), i))
    return Ranking(tuple(order), tuple(wins), tuple(low), tuple(high))


def by_scores(scores: Sequence[float | None]) -> Ranking:
    """Return the answers by their scores; equal ones by the lower index. Answers without a score
    have no place.

    The soft wins follow from the scores in the way reward models are trained (Bradley-Terry): p(i
    better than j) is 1 / (1 + exp(s_j - s_i)).
    """
    known = {i: score for i, score in enumerate(scores) if score is not None}
    wins = [0.0] * len(scores)
    for i, score in known.items():
        wins[i] = sum(
            (1 + math.tanh((score - other) / 2)) / 2 for j, other in known.items() if j != i
        )
    order = sorted(known, key=lambda i: (-known[i], i))
    return Ranking(tuple(order), *(tuple(wins),) * 3)


def best(ranking: Ranking) -> int:
    """Return the best answer. Raises `RowRejected` if another one may be, depending on an order
    that could not be judged."""
    first, *others = ranking.order
    for other in others:
        if not ranking.sure(first, other):
            raise RowRejected(
                UNDECIDED,
                f"answer {first} would be the best, but orders of answer {other} that could not be "
                "judged may change that",
            )
    return first


def pair(
    ranking: Ranking, min_margin: float = 0.0, choosable: Collection[int] | None = None
) -> Pair | None:
    """Return best against worst, or None if they are closer than `min_margin` soft wins.

    Only a `choosable` answer can be the best; None if one of these is the worst of all. Raises
    `RowRejected` if best or worst depend on an order that could not be judged.
    """
    best = [i for i in ranking.order if choosable is None or i in choosable]
    if not best or best[0] == ranking.order[-1]:
        return None
    chosen, rejected = best[0], ranking.order[-1]
    others = [i for i in ranking.order if i != rejected]
    unsure = [i for i in best[1:] if not ranking.sure(chosen, i)]
    unsure += [i for i in others if not ranking.sure(i, rejected)]
    if unsure:
        raise RowRejected(
            UNDECIDED,
            f"answers {chosen} and {rejected} would be best and worst, but orders of answer "
            f"{unsure[0]} that could not be judged may change that",
        )
    margin = ranking.wins[chosen] - ranking.wins[rejected]
    return Pair(chosen, rejected, margin) if margin >= min_margin else None


def distinct(answers: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return the distinct `answers` (text, finish reason) in order of appearance: `{text, count,
    finish_reason}`.

    Answers that differ only in outer white space are the same. Empty answers are left out (the
    counts then sum to fewer). Raises `RowRejected` if fewer than two remain: there is no
    preference.
    """
    found: dict[str, dict[str, Any]] = {}
    for text, finish_reason in answers:
        if not (text := text.strip()):
            continue
        each = found.setdefault(text, {"text": text, "count": 0, "finish_reason": finish_reason})
        each["count"] += 1
        if finish_reason == "stop":  # it ended by itself once, so it is complete
            each["finish_reason"] = finish_reason
    if len(found) < 2:
        empty = len(answers) - sum(each["count"] for each in found.values())
        raise RowRejected(
            "fewer than two distinct answers",
            f"{len(answers)} answers: {len(found)} distinct, {empty} empty",
        )
    return list(found.values())


def _completed(
    n: int, judged: Sequence[Judgement], expected: Mapping[tuple[int, int], float]
) -> list[Judgement]:
    """Return all pairs, with the expected verdict of each order that was not asked."""
    known = {(each.a, each.b): each for each in judged}
    found = []
    for a, b in combinations(range(n), 2):
        each = known.get((a, b)) or Judgement(a, b, None, None, ())
        p_ab, p_ba = expected.get((a, b)), expected.get((b, a))
        found.append(
            replace(
                each,
                p_ab=each.p_ab if p_ab is None else p_ab,
                p_ba=each.p_ba if p_ba is None else 1 - p_ba,
            )
        )
    return found


def _complete(n: int, judged: Sequence[Judgement]) -> bool:
    """Return whether every pair of the `n` answers was judged, and all equally often."""
    times = Counter(frozenset((each.a, each.b)) for each in judged)
    return len(times) == n * (n - 1) // 2 and len(set(times.values())) <= 1


def bradley_terry(n: int, judgements: Iterable[Judgement]) -> list[float]:
    """Return the strengths s of `n` answers: p(i better than j) is about s_i / (s_i + s_j); their
    mean is 1.

    Minorization-maximization (Hunter 2004), with a weak prior towards equal strengths.
    """
    wins = [PRIOR / 2] * n
    games: dict[tuple[int, int], int] = {}
    for each in judgements:
        p = sum(each.bounds) / 2
        wins[each.a] += p
        wins[each.b] += 1 - p
        for meeting in ((each.a, each.b), (each.b, each.a)):
            games[meeting] = games.get(meeting, 0) + 1
    strengths = [1.0] * n
    for _ in range(1000):
        met = [PRIOR / (s + 1) for s in strengths]
        for (i, j), times in games.items():
            met[i] += times / (strengths[i] + strengths[j])
        updated = [w / m for w, m in zip(wins, met, strict=True)]
        change = max(abs(new - old) for new, old in zip(updated, strengths, strict=True))
        strengths = updated
        if change < 1e-12:
            break
    mean = sum(strengths) / n
    return [s / mean for s in strengths]
