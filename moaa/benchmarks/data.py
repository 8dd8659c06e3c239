"""Questions of benchmarks: read from a source, and compared with the published ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TypeVar

from moaa.benchmarks.benchmark import Item

T = TypeVar("T")


def digest(items: Sequence[Item]) -> str:
    """Return the first 16 hex digits of the sha256 of the questions, in any order.

    It does not depend on the file that they came in.
    """
    texts = sorted(json.dumps(item.to_json(), sort_keys=True) for item in items)
    return hashlib.sha256("\n".join(texts).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` of them, evenly spread: the same ones each time."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]
