"""Simulated canaries: requests to two versions, drawn at random, until the guard blames one."""

from __future__ import annotations

import random
from collections.abc import Callable

from moaa.gateway.guard import Guard, RequestOutcome

Draw = Callable[[random.Random], RequestOutcome]


def outcomes(
    revision: str,
    *,
    error: float = 0.0,
    empty: float = 0.0,
    cut: float = 0.0,
    first_s: float = 0.3,
) -> Draw:
    """Return what draws outcomes with these rates; times to the first token have a long tail."""

    def draw(chance: random.Random) -> RequestOutcome:
        return RequestOutcome(
            revision,
            500 if chance.random() < error else 200,
            first_s * chance.lognormvariate(0, 0.7),
            empty=chance.random() < empty,
            cut=chance.random() < cut,
        )

    return draw


def requests_until_blamed(
    old: Draw, new: Draw, *, seed: int = 0, share: float = 0.05, most: int = 20_000
) -> tuple[int, str]:
    """Return how many requests the new revision got before it was blamed, and why. The reason is
    empty if `most` requests to both blamed nobody."""
    chance, guard, count = random.Random(seed), Guard(), 0
    guard.judge("new")
    for _ in range(most):
        is_new = chance.random() < share
        count += is_new
        if reason := guard.add((new if is_new else old)(chance)):
            return count, reason
    return count, ""


OLD = outcomes("old", error=0.01, empty=0.01, cut=0.1)
"""A version in production: 1 % of its requests fail, 1 % of its answers are empty, 10 % are cut."""
