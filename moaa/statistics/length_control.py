"""Win rates as they would be if both answers were equally long.

`length_controlled` is AlpacaEval 2's, for its own prompts and baseline (Dubois et al., "Length-
Controlled AlpacaEval", arXiv 2404.04475, and its published code). `length_adjusted` is the same
idea for any other pair of models.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from moaa.statistics.estimate import LEVEL, Estimate
from moaa.statistics.logistic import RIDGE, Array, log_loss, logistic, sigmoid
from moaa.statistics.resampling import RESAMPLES, resample

STRENGTHS = np.logspace(-4, 4, 10)
"""The values of C (the inverse of the L1 penalty) that are tried."""

FEWEST = 10
"""The fewest prompts from which the effect of length can be estimated."""

FOLDS = 5
GAMED_WEIGHT = 0.1


@dataclass(frozen=True)
class Difficulties:
    """What AlpacaEval 2 publishes for its regression.

    `of` maps an instruction to its difficulty. `gamed` are the rows of two answers of the baseline
    that were made short and long on purpose: tanh of the scaled length difference, difficulty, and
    preference (0 to 1), shape (rows, 3). They make the effect of length similar for all models.
    """

    of: Mapping[Any, float]
    gamed: Array


def length_controlled(
    instructions: Sequence[Hashable],
    preferences: Sequence[float],
    lengths: tuple[Sequence[int], Sequence[int]],
    published: Difficulties,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Return AlpacaEval 2's length-controlled win rate, a share.

    `preferences` are the probabilities that the model's answer is better, `lengths` the characters
    of the baseline's and of the model's answers; one of each for an instruction. Difficulties are
    found by instruction, so that missing rows and another order change nothing else (the published
    code finds them by position). The strength of the penalty is chosen once, by five grouped folds.
    The interval comes from resampling prompts and fitting again at that strength. Raises ValueError
    for an instruction without a difficulty.
    """
    unknown = [each for each in instructions if each not in published.of]
    if unknown:
        raise ValueError(
            f"{len(unknown)} of {len(instructions)} instructions have no published difficulty, for "
            f"example {str(unknown[0])[:80]!r}; the length-controlled rate needs AlpacaEval's own"
        )
    difficulty = np.array([published.of[each] for each in instructions])
    y = np.concatenate([published.gamed[:, 2], np.asarray(preferences, dtype=np.float64)])
    extra, n = len(published.gamed), len(difficulty)
    delta = np.subtract(*(np.asarray(each, dtype=np.float64) for each in lengths))

    def features(counts: Array) -> Array:
        x = np.zeros((extra + n, 3))
        x[:extra, :2] = published.gamed[:, :2]
        x[extra:] = np.column_stack([scaled(delta, counts), difficulty, np.ones(n)])
        return x

    def weights(counts: Array) -> Array:
        return np.concatenate([np.full(extra, GAMED_WEIGHT), counts])

    ones = np.ones(n)
    strength = _strength(features(ones), y, weights(ones))
    start = logistic(features(ones), y, weights(ones), l1=1 / strength)

    def fit(counts: Array) -> float:
        w = logistic(features(counts), y, weights(counts), l1=1 / strength, start=start)
        return float(counts @ sigmoid(w[1] * difficulty + w[2]) / counts.sum())

    return resample(fit, n, resamples=resamples, seed=seed, level=level)


def length_adjusted(
    p: Sequence[float],
    lengths: tuple[Sequence[float], Sequence[float]],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Return the share of prompts that a would win against b if their answers were equally long.

    `p` are the probabilities that a's answer is better, `lengths` those of a's and of b's answers;
    one of each for a prompt. A logistic regression on tanh of the scaled length difference and an
    intercept is read at difference 0. Prompts are resampled and the regression is fitted again. If
    all prompts have the same probability they show no effect of length, and none is fitted.
    """
    y = np.asarray(p, dtype=np.float64)
    delta = np.subtract(*(np.asarray(each, dtype=np.float64) for each in lengths))
    if np.ptp(y) == 0:
        delta = np.zeros_like(delta)

    def fit(counts: Array) -> float:
        x = np.column_stack([scaled(delta, counts), np.ones(len(y))])
        return float(sigmoid(logistic(x, y, counts, l2=RIDGE)[1:])[0])

    return resample(fit, len(y), resamples=resamples, seed=seed, level=level)


def scaled(delta: Array, counts: Array) -> Array:
    """Return tanh of the length differences, in units of their standard deviation. All are 0 if all
    differences are equal: then the rate cannot be separated from the effect of length."""
    n = counts.sum()
    mean = counts @ delta / n
    variance = counts @ (delta - mean) ** 2 / max(n - 1, 1)
    return np.tanh(delta / np.sqrt(variance)) if variance > 0 else np.zeros_like(delta)


def _strength(x: Array, y: Array, weights: Array) -> float:
    """Return the C with the lowest loss on held-out folds:
    rows dealt out from the last to the first."""
    fold = (len(y) - 1 - np.arange(len(y))) % FOLDS
    loss = np.zeros(len(STRENGTHS))
    for each in range(FOLDS):
        held = fold == each
        w: Array | None = None
        for i, strength in enumerate(STRENGTHS):
            w = logistic(x[~held], y[~held], weights[~held], l1=1 / strength, start=w)
            loss[i] += (weights[held] * log_loss(y[held], x[held] @ w)).mean()
    return float(STRENGTHS[int(loss.argmin())])
