"""Which comparison a ranking needs next, and whether its two ends are certain. Pure, no I/O.

The model is Bradley-Terry on the log-odds of the verdicts:

    log-odds of i, shown before j  =  strength i - strength j + position bias + noise

with normal priors. So strengths have intervals, and so does every verdict that was not asked for.
An end (best or worst) is certain enough if, with the given confidence, the missing verdicts would
not change it. The reference is the judge that compares all pairs in both orders.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations, permutations
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats: TypeAlias = NDArray[np.float64]

Meeting: TypeAlias = tuple[int, int]
"""One order of a pair: the index of the answer shown first, and of the answer shown second."""
Seen: TypeAlias = Mapping[Meeting, float | None]
"""The orders judged so far: the probability that the answer shown first is better. None: it could
not be judged, and counts as a tie, as in the judge that compares all pairs."""

STRENGTH: Final = 3.5
"""Standard deviation of the strengths before any verdict, in log-odds."""
PAIR_NOISE: Final = 1.7
"""Standard deviation of what is special to a pair, in any order:
rankings of judges are not transitive."""
ORDER_NOISE: Final = 1.7
"""Standard deviation of what is special to one order of a pair."""
BIAS: Final = 1.1
"""Standard deviation of the position bias, which is the same for all verdicts of a prompt."""
WEIGHT: Final = 1.0
"""The four numbers above are scaled by how sharp this judge is on this prompt. The prior of the
scale counts as much as this many verdicts. The scale itself is as uncertain as this few verdicts
leave it: without that, ends would look certain too early."""
MOST_LOG_ODDS: Final = 16.0
"""Verdicts are cut at these log-odds: a surer one adds no information."""
MOST_LOG_ODDS_HARD: Final = 3.0
"""The same for a verdict of 0 or 1, which has no degree.
If all are like this, missing ones will be too."""
DRAWS: Final = 500
BINS: Final = 4


@dataclass(frozen=True, slots=True)
class Outlook:
    """What is known about a ranking, and what is expected."""

    expected: Mapping[Meeting, float]
    """For each order that was not asked: the mean probability that its first answer is better."""
    best: int
    worst: int
    best_sure: float
    """The probability that this answer is the best after all orders, missing ones included."""
    worst_sure: float
    gains: Mapping[Meeting, float]
    """For each order that was not asked: how much it says about the ends (mutual information, in
    nats, of the verdict and the ends that are not certain yet)."""

    def settled(self, confidence: float) -> bool:
        """Return whether both ends are certain enough."""
        return min(self.best_sure, self.worst_sure) >= confidence


@dataclass(frozen=True, slots=True)
class Rule:
    """When to stop. `first` and `second` are the calls of a pair's first and second order."""

    confidence: float
    budget: float
    """The most calls for one prompt. The first round is asked at any cost."""
    first: int
    second: int


def first_round(n: int) -> list[Meeting]:
    """Return the orders that a tournament of `n` answers starts with: each answer is in one, if
    their number is even."""
    return [(i, i + 1) for i in range(0, n - 1, 2)]


def next_round(n: int, seen: Seen, rule: Rule, choosable: Collection[int]) -> list[Meeting]:
    """Return the orders to ask now; none if both ends are certain enough, or if the budget is used.

    The same arguments give the same result. A round has one order for every five answers.
    """
    if not seen:
        return first_round(n)
    view = outlook(n, seen, choosable, rule.confidence)
    if view.settled(rule.confidence):
        return []
    left = rule.budget - sum(calls(seen, rule).values())
    costs = {m: rule.second if m[::-1] in seen else rule.first for m in view.gains}
    ranked = sorted(view.gains, key=lambda m: (-round(view.gains[m] / costs[m], 9), m))
    chosen: list[Meeting] = []
    for meeting in ranked:
        if len(chosen) < max(1, n // 5) and costs[meeting] <= left:
            chosen.append(meeting)
            left -= costs[meeting]
    return chosen


def calls(seen: Seen, rule: Rule) -> dict[Meeting, int]:
    """Return the calls of each order: the second one of a pair is cheaper
    if criteria are shared."""
    met: set[Meeting] = set()
    costs = {}
    for first, second in seen:
        costs[first, second] = rule.second if (second, first) in met else rule.first
        met.add((first, second))
    return costs


def outlook(n: int, seen: Seen, choosable: Collection[int], confidence: float = 1.0) -> Outlook:
    """Return what the orders so far say about the ranking of `n` answers.

    The best one is chosen from the `choosable`, the worst one from all. `confidence`: an end that
    is at least this probable adds nothing to `gains`.
    """
    import numpy as np

    missing = [meeting for meeting in permutations(range(n), 2) if meeting not in seen]
    p = _drawn(n, seen, missing)
    wins = np.full((DRAWS, n), 0.0)
    for (first, second), known in seen.items():
        wins[:, first] += (0.5 if known is None else known) / 2
        wins[:, second] += (0.5 if known is None else 1 - known) / 2
    for column, (first, second) in enumerate(missing):
        wins[:, first] += p[:, column] / 2
        wins[:, second] += (1 - p[:, column]) / 2
    wins = wins.round(9)  # a sum in another order is not a preference
    may = sorted(choosable)
    best, worst = np.array(may)[wins[:, may].argmax(1)], n - 1 - wins[:, ::-1].argmin(1)
    mean = wins.mean(0).round(9)
    top, bottom = may[int(mean[may].argmax())], n - 1 - int(mean[::-1].argmin())
    best_sure, worst_sure = float((best == top).mean()), float((worst == bottom).mean())
    gains = np.zeros(len(missing))
    if missing:
        bins = p.argsort(0, kind="stable").argsort(0, kind="stable") * BINS // DRAWS
        for end, sure in ((best, best_sure), (worst, worst_sure)):
            if sure < confidence:
                gains += _information(np.eye(n)[end], bins)
    return Outlook(
        {meeting: float(mean_p) for meeting, mean_p in zip(missing, p.mean(0), strict=True)},
        top,
        bottom,
        best_sure,
        worst_sure,
        {meeting: float(gain) for meeting, gain in zip(missing, gains, strict=True)},
    )


def _information(ends: Floats, bins: NDArray[np.int64]) -> Floats:
    """Return the mutual information of an end (one row a draw, 1 in the column of the answer) and
    each order's verdict, given by its quantile in `bins`."""
    import numpy as np

    found = np.full(bins.shape[1], _entropy(ends.mean(0)))
    for quantile in range(BINS):
        inside = (bins == quantile).T.astype(float)
        share = inside.mean(1)
        found -= share * _entropy(inside @ ends / inside.sum(1, keepdims=True))
    return found


def _entropy(shares: Floats) -> Floats:
    import numpy as np

    found: Floats = -(shares * np.log(np.maximum(shares, 1e-12))).sum(-1)
    return found


def _drawn(n: int, seen: Seen, missing: list[Meeting]) -> Floats:
    """Return draws of the missing verdicts, (DRAWS, missing),
    from the posterior of strengths and bias."""
    import numpy as np

    known = [(meeting, _log_odds(p)) for meeting, p in seen.items() if p is not None]
    rows, y = _design(n, [m for m, _ in known]), np.array([odds for _, odds in known])
    prior = np.diag([STRENGTH**2] * n + [BIAS**2])
    pair, order = PAIR_NOISE**2, ORDER_NOISE**2
    noise = np.eye(len(known)) * (pair + order)
    place = {meeting: k for k, (meeting, _) in enumerate(known)}
    for meeting, k in place.items():
        if meeting[::-1] in place:
            noise[k, place[meeting[::-1]]] = -pair
    gain = np.linalg.solve(rows @ prior @ rows.T + noise, rows @ prior).T
    mean, spread = gain @ y, prior - gain @ rows @ prior
    misfit = y @ np.linalg.solve(rows @ prior @ rows.T + noise, y)
    normal = _normal(n)
    evidence = WEIGHT + len(known)
    scale = np.sqrt((WEIGHT + misfit) / evidence) * np.exp(normal[:, 0] / np.sqrt(2 * evidence))
    root = np.linalg.cholesky((spread + spread.T) / 2 + 1e-9 * np.eye(n + 1)).T
    theta = mean + scale[:, None] * (normal[:, 1 : n + 2] @ root)
    special, own = normal[:, n + 2 :][:, : n * (n - 1) // 2], normal[:, -n * (n - 1) :]
    pairs = {each: k for k, each in enumerate(combinations(range(n), 2))}
    orders = {each: k for k, each in enumerate(permutations(range(n), 2))}
    odds = theta @ _design(n, missing).T
    for column, meeting in enumerate(missing):
        if (other := place.get(meeting[::-1])) is not None:
            shared = pair / (pair + order)
            odds[:, column] -= shared * (y[other] - theta @ rows[other])
            odds[:, column] += (
                scale * np.sqrt((pair + order) * (1 - shared**2)) * own[:, orders[meeting]]
            )
        else:
            side = 1 if meeting[0] < meeting[1] else -1
            odds[:, column] += scale * PAIR_NOISE * side * special[:, pairs[_pair(meeting)]]
            odds[:, column] += scale * ORDER_NOISE * own[:, orders[meeting]]
    if known and all(seen[meeting] in (0, 1) for meeting, _ in known):
        drawn: Floats = (odds > 0).astype(float)
    else:
        drawn = 1 / (1 + np.exp(-odds))
    return drawn


def _design(n: int, meetings: list[Meeting]) -> Floats:
    """Return one row an order: +1 for the answer shown first, -1 for the other, 1 for the bias."""
    import numpy as np

    rows = np.zeros((len(meetings), n + 1))
    for k, (first, second) in enumerate(meetings):
        rows[k, first], rows[k, second], rows[k, n] = 1, -1, 1
    return rows


def _log_odds(p: float) -> float:
    most = MOST_LOG_ODDS_HARD if p in (0, 1) else MOST_LOG_ODDS
    p = min(max(p, 1e-9), 1 - 1e-9)
    return max(-most, min(most, math.log(p / (1 - p))))


def _pair(meeting: Meeting) -> Meeting:
    return min(meeting), max(meeting)


@lru_cache(maxsize=8)
def _normal(n: int) -> Floats:
    """Return standard normal numbers, always the same ones: for the scale, strengths and bias,
    pairs and orders."""
    import numpy as np

    width = n + 2 + n * (n - 1) // 2 + n * (n - 1)
    return np.random.default_rng(0).standard_normal((DRAWS, width))
