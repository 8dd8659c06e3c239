"""Bytes for a store and from it: JSON text, digests of files, reading ahead."""

from __future__ import annotations

import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
R = TypeVar("R")


def to_json(value: Any) -> bytes:
    """Return compact JSON. Half a surrogate pair, which models do write, is kept as an escape."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def object_of(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object that a text is. Raises ValueError if it is none."""
    try:
        found = json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    if not isinstance(found, dict):
        raise ValueError("it is no JSON object")
    return found


def sha256_of(path: Path) -> str:
    """Return the hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_ahead(read: Callable[[T], R], items: Iterable[T], threads: int = 1) -> Iterator[R]:
    """Yield each item read, in order; `threads` threads read the following items in advance."""
    with ThreadPoolExecutor(threads, "moaa-read") as pool:
        pending: deque[Future[R]] = deque()
        for item in items:
            pending.append(pool.submit(read, item))
            if len(pending) > threads:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
