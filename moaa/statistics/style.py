"""Win rates as they would be if both answers had the same style (Arena-Hard's style control).

There are two differences from the published code, both on purpose. It centres the features over all
loaded battles, so that "no difference of style" means the average battle's, and a model's number
depends on which others were measured. Here 0 is the baseline's own style, and each model is fitted
alone. The published code resamples battles, of which a prompt has up to six; here prompts are
resampled.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np

from moaa.statistics.estimate import LEVEL, Estimate
from moaa.statistics.logistic import RIDGE, Array, logistic, sigmoid
from moaa.statistics.resampling import RESAMPLES, resample

CODE = re.compile("```[^`]*```")
HEADERS = re.compile(r"^#{1,6}\s", re.MULTILINE)
LISTS = (re.compile(r"^\s*\d+\.\s", re.MULTILINE), re.compile(r"^\s*[-*+]\s", re.MULTILINE))
BOLD = (re.compile(r"\*\*[^*\n]+\*\*"), re.compile(r"__[^_\n]+__"))

FEATURES = ("length", "headers", "lists", "bold")


@dataclass(frozen=True, slots=True)
class Style:
    """The style of an answer: its tokens, and its counts of headers,
    list items and bold phrases."""

    tokens: int
    headers: int
    lists: int
    bold: int


@dataclass(frozen=True, slots=True)
class Battle:
    """One verdict on a model's answer against the baseline's.

    `score` is 1 if the model's answer won, 0.5 for a tie, 0 if it lost, or a probability between.
    `weight` is how much it counts: 3 for a clear win or loss. `style` is the difference of styles
    from `style_difference`.
    """

    prompt: Hashable
    score: float
    weight: float
    style: tuple[float, float, float, float]


def style_of(text: str, tokens: int) -> Style:
    """Return the style of an answer of `tokens` tokens.
    Text in blocks of code counts only for the length."""
    prose = CODE.sub("", text)
    return Style(
        tokens,
        len(HEADERS.findall(prose)),
        sum(len(each.findall(prose)) for each in LISTS),
        sum(len(each.findall(prose)) for each in BOLD),
    )


def style_difference(model: Style, baseline: Style) -> tuple[float, float, float, float]:
    """Return the relative difference of length, and the differences of densities
    of headers, lists, bold."""
    tokens = model.tokens + baseline.tokens

    def density(count: int, other: int) -> float:
        a, b = count / (model.tokens + 1), other / (baseline.tokens + 1)
        return (a - b) / (a + b + 1)

    return (
        (model.tokens - baseline.tokens) / tokens if tokens else 0.0,
        density(model.headers, baseline.headers),
        density(model.lists, baseline.lists),
        density(model.bold, baseline.bold),
    )


def battle_rate(
    battles: Sequence[Battle],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Return the model's weighted win rate against the baseline. `n` counts prompts."""
    prompt, n = _numbered(battles)
    weight = np.array([each.weight for each in battles])
    won = np.bincount(prompt, weight * [each.score for each in battles], n)
    total = np.bincount(prompt, weight, n)

    def fit(counts: Array) -> float:
        return float(counts @ won / (counts @ total))

    return resample(fit, n, resamples=resamples, seed=seed, level=level)


def battle_difference(
    ours: Sequence[Battle],
    theirs: Sequence[Battle],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """The win rate of one model minus that of another one, both against the same baseline on the
    same prompts: paired, since a prompt is drawn with the battles of both. `n` counts prompts."""
    prompt, n = _numbered([*ours, *theirs])
    weight = np.array([each.weight for each in (*ours, *theirs)])
    score = np.array([each.score for each in (*ours, *theirs)])
    sides = [np.arange(len(prompt)) < len(ours), np.arange(len(prompt)) >= len(ours)]
    sums = [
        (np.bincount(prompt, weight * score * side, n), np.bincount(prompt, weight * side, n))
        for side in sides
    ]

    def fit(counts: Array) -> float:
        our_rate, their_rate = (float(counts @ won / (counts @ total)) for won, total in sums)
        return our_rate - their_rate

    return resample(
        fit, n, unit="difference of shares", resamples=resamples, seed=seed, level=level
    )


def style_controlled(
    battles: Sequence[Battle],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
    level: float = LEVEL,
) -> Estimate:
    """Return the model's win rate against the baseline at equal style. `n` counts prompts.

    Bradley-Terry of two models is a logistic regression with an intercept, the model's strength
    minus the baseline's. The features are scaled by their standard deviation, not centred. If all
    battles have the same score they show no effect of style, and none is fitted.
    """
    prompt, n = _numbered(battles)
    y = np.array([each.score for each in battles])
    weight = np.array([each.weight for each in battles])
    features = np.array([each.style for each in battles])
    if np.ptp(y) == 0:
        features = np.zeros_like(features)
    spread = features.std(axis=0)
    x = np.column_stack([np.ones(len(y)), features / np.where(spread > 0, spread, 1.0)])
    start = logistic(x, y, weight, l2=RIDGE)

    def fit(counts: Array) -> float:
        w = logistic(x, y, weight * counts[prompt], l2=RIDGE, start=start)
        return float(sigmoid(w[:1])[0])

    return resample(fit, n, resamples=resamples, seed=seed, level=level)


def _numbered(battles: Sequence[Battle]) -> tuple[np.ndarray, int]:
    """Return the number of each battle's prompt, and how many prompts there are."""
    numbers: dict[Hashable, int] = {}
    found = [numbers.setdefault(each.prompt, len(numbers)) for each in battles]
    return np.array(found), len(numbers)
