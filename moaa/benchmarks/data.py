"""Questions of benchmarks: read from a source, and compared with the published ones."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from moaa.benchmarks.items import Item
from moaa.errors import RecipeError

T = TypeVar("T")


def digest(items: Sequence[Item]) -> str:
    """Return the first 16 hex digits of the sha256 of the questions, in any order.

    It depends neither on their file nor on how they are answered.
    """
    return digest_of([{**item.to_json(), "sampling": None} for item in items])


def identity(items: Sequence[Item]) -> str:
    """Return the digest of the questions and of how each one is answered."""
    return digest_of([item.to_json() for item in items])


def digest_of(rows: Iterable[Mapping[str, Any]]) -> str:
    """Return the first 16 hex digits of the sha256 of rows, in any order."""
    texts = sorted(json.dumps(row, sort_keys=True) for row in rows)
    return hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]


def unique(items: Iterable[Item], title: str) -> list[Item]:
    """Return the questions, each once.

    Raises RecipeError if two different ones have the same id: one judgement would count for both.
    """
    found: dict[str, Item] = {}
    for item in items:
        if found.setdefault(item.id, item) != item:
            asked = next((each["content"] for each in reversed(item.messages)), "")
            raise RecipeError(
                f"{title}: two different questions are called {item.id!r} ({asked[:60]!r}). Give "
                "the published questions, each once."
            )
    return list(found.values())


def evenly(items: Sequence[T], limit: int | None) -> list[T]:
    """Return at most `limit` of the items, evenly spread, and always the same ones."""
    if limit is None or limit >= len(items):
        return list(items)
    return [items[i * len(items) // limit] for i in range(limit)]
