"""Simulated battles of one model against a baseline, whose win rate at equal style is known."""

from __future__ import annotations

from functools import cache

import numpy as np

from moaa.statistics import Battle
from moaa.statistics.logistic import Array

STRENGTH, PROMPTS = -1.0, 0.6
"""The model's strength minus the baseline's, and how much that varies with the prompt."""

CLEAR, TIE = 2.0, 0.2
"""How far apart two answers must be for a clear verdict; and below which it is a tie."""


def battles_of(seed: int, styles: Array, effect: float = 0.8) -> list[Battle]:
    """Two battles a prompt (one each order). `styles` are (prompts, 4) differences of style; one
    standard deviation of length moves a verdict by `effect`."""
    draw = np.random.default_rng(seed)
    n = len(styles)
    helped = effect * styles[:, 0] / styles[:, 0].std()
    strength = STRENGTH + draw.normal(0, PROMPTS, n) + helped
    found = []
    for quality in (draw.logistic(strength, 1), draw.logistic(strength, 1)):
        score, weight = _verdicts(quality)
        found += [
            Battle(i, float(score[i]), float(weight[i]), tuple(styles[i].tolist()))
            for i in range(n)
        ]
    return found


@cache
def true_rate() -> float:
    """The weighted win rate of that model at equal style, from a million battles."""
    draw = np.random.default_rng(99)
    score, weight = _verdicts(draw.logistic(STRENGTH + draw.normal(0, PROMPTS, 1_000_000), 1))
    return float(score @ weight / weight.sum())


def _verdicts(quality: Array) -> tuple[Array, Array]:
    score = np.where(np.abs(quality) < TIE, 0.5, (quality > 0).astype(float))
    return score, np.where(np.abs(quality) > CLEAR, 3.0, 1.0)
