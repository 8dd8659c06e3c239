"""Logistic regression for a few features: targets are probabilities, penalties L1 and L2."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

STEPS, SWEEPS, TOLERANCE = 100, 1000, 1e-9
RIDGE = 1e-3
"""The `l2` that keeps a regression finite when one side always wins. It moves a win rate by less
than 1e-4."""


def logistic(
    x: Array,
    y: Array,
    weights: Array,
    *,
    l1: float = 0.0,
    l2: float = 0.0,
    start: Array | None = None,
) -> Array:
    """Return the coefficients that minimise the penalised, weighted log-loss. There is no
    intercept: add a column of ones.

    `x` is (rows, features), `y` the probability of each row, `weights` how much each row counts.
    Minimised: sum of weights · log-loss + l1 · Σ|w| + l2/2 · Σw². Without a penalty, rows that the
    features separate have no finite solution: use a small `l2`. `start`: the first coefficients,
    which change the time and not the result. Method: proximal Newton steps with a line search.
    Raises ArithmeticError if it does not converge.
    """
    w = np.zeros(x.shape[1]) if start is None else start.copy()
    value = _objective(x, y, weights, w, l1, l2)
    for _ in range(STEPS):
        p = sigmoid(x @ w)
        gradient = x.T @ (weights * (p - y)) + l2 * w
        hessian = (x.T * (weights * p * (1 - p))) @ x + (l2 + 1e-10) * np.eye(len(w))
        step = _newton(w, gradient, hessian, l1)
        promised = gradient @ step + l1 * (np.abs(w + step).sum() - np.abs(w).sum())
        if np.abs(step).max() < TOLERANCE or promised > -1e-13 * max(1.0, abs(value)):
            return w + step
        length = 1.0
        while True:
            better = _objective(x, y, weights, w + length * step, l1, l2)
            if better <= value + 1e-4 * length * promised or length < 1e-10:
                break
            length /= 2
        w, value = w + length * step, better
    raise ArithmeticError(f"logistic regression did not converge in {STEPS} steps: {w}")


def sigmoid(x: Array) -> Array:
    """Return 1 / (1 + e^-x), without overflow."""
    return np.asarray(np.exp(-np.logaddexp(0, -x)), dtype=np.float64)


def log_loss(y: Array, z: Array) -> Array:
    """Return minus the logarithm of the likelihood of `y` (a probability each),
    if its logit is `z`."""
    return np.asarray(np.logaddexp(0, z) - y * z, dtype=np.float64)


def _objective(x: Array, y: Array, weights: Array, w: Array, l1: float, l2: float) -> float:
    loss = weights @ log_loss(y, x @ w)
    return float(loss + l1 * np.abs(w).sum() + l2 / 2 * (w @ w))


def _newton(w: Array, gradient: Array, hessian: Array, l1: float) -> Array:
    """Return the step that minimises the local quadratic plus l1 · Σ|w + step|."""
    if l1 == 0:
        return np.asarray(np.linalg.solve(hessian, -gradient), dtype=np.float64)
    # Coordinate by coordinate, in plain floats: there are few features and thousands of fits.
    h, g, old = hessian.tolist(), gradient.tolist(), w.tolist()
    new, features = list(old), range(len(old))
    for _ in range(SWEEPS):
        largest = 0.0
        for j in features:
            slope = g[j] + sum(h[j][k] * (new[k] - old[k]) for k in features)
            centre = new[j] - slope / h[j][j]
            size = max(abs(centre) - l1 / h[j][j], 0.0)
            shrunk = math.copysign(size, centre)
            largest = max(largest, abs(shrunk - new[j]))
            new[j] = shrunk
        if largest < TOLERANCE / 10:
            break
    return np.asarray(new, dtype=np.float64) - w
