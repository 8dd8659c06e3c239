"""The lengths of the answers of each model. Alignment lengthens answers, and judges prefer that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

BINS = 20


def lengths(answers: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the lengths of each model's answers.

    `answers` are rows with `model`, `text`, `tokens` and `finish_reason`. For each model:
    `mean_tokens`, `median_tokens`, `mean_characters`, `truncated` (share cut at max_tokens),
    `answers` (how many), and `histogram`: `counts` of answers between successive `edges` (tokens),
    with the same edges for all models.
    """
    tokens: dict[str, list[int]] = {}
    characters: dict[str, list[int]] = {}
    truncated: dict[str, int] = {}
    for row in answers:
        model = row["model"]
        tokens.setdefault(model, []).append(row["tokens"])
        characters.setdefault(model, []).append(len(row["text"]))
        truncated[model] = truncated.get(model, 0) + (row["finish_reason"] == "length")
    if not tokens:
        return {}
    longest = max(max(each) for each in tokens.values())
    edges = np.unique(np.linspace(0, max(longest, 1), BINS + 1).round().astype(int))
    return {
        model: {
            "answers": len(each),
            "mean_tokens": float(np.mean(each)),
            "median_tokens": float(np.median(each)),
            "mean_characters": float(np.mean(characters[model])),
            "truncated": truncated[model] / len(each),
            "histogram": {
                "edges": edges.tolist(),
                "counts": np.histogram(each, bins=edges)[0].tolist(),
            },
        }
        for model, each in tokens.items()
    }
