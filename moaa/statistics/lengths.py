"""The lengths of the answers of each model. Alignment lengthens answers, and judges prefer that."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from moaa.statistics.estimate import with_ends
from moaa.statistics.paired import clustered_share, mean

BINS = 20


def lengths(answers: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the lengths of each model's answers.

    `answers` are rows with `model`, `text`, `tokens` and `finish_reason`; rows with the same `id`
    are turns of one conversation. For each model: `answers` (how many), `median_tokens`, the means
    `mean_tokens` and `mean_characters`, the shares `truncated` (cut by max_tokens) and `empty`,
    each of these with the ends of its 95 % interval (`mean_tokens_low`, `mean_tokens_high`, …); and
    `histogram`: `counts` of answers between successive `edges` (tokens), the same edges for all
    models.
    """
    found: dict[str, dict[str, list[Any]]] = {}
    for number, row in enumerate(answers):
        own = found.setdefault(row["model"], defaultdict(list))
        own["of"].append(row.get("id", number))
        own["mean_tokens"].append(row["tokens"])
        own["mean_characters"].append(len(row["text"]))
        own["truncated"].append(row["finish_reason"] == "length")
        own["empty"].append(not row["text"].strip())
    if not found:
        return {}
    longest = max(max(own["mean_tokens"]) for own in found.values())
    edges = np.unique(np.linspace(0, max(longest, 1), BINS + 1).round().astype(int))
    return {
        model: {
            "answers": len(own["of"]),
            "median_tokens": float(np.median(own["mean_tokens"])),
            **with_ends("mean_tokens", mean(own["mean_tokens"], own["of"], unit="tokens")),
            **_mean_characters(own["mean_characters"], own["of"]),
            **with_ends("truncated", clustered_share(own["truncated"], own["of"])),
            **with_ends("empty", clustered_share(own["empty"], own["of"])),
            "histogram": {
                "edges": edges.tolist(),
                "counts": np.histogram(own["mean_tokens"], bins=edges)[0].tolist(),
            },
        }
        for model, own in found.items()
    }


def characters(texts: Sequence[str]) -> dict[str, Any]:
    """The lengths of answers of which only the text is known, as a baseline's: `answers`, and
    `mean_characters` with its interval, as `lengths` gives them."""
    counts = [len(text) for text in texts]
    return {"answers": len(texts), **_mean_characters(counts, list(range(len(texts))))}


def _mean_characters(counts: Sequence[int], of: Sequence[Any]) -> dict[str, float | None]:
    return with_ends("mean_characters", mean(counts, of, unit="characters"))
