"""Bytes on their way to a store and back: JSON text, digests of files, reading ahead."""

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
    """Compact JSON that survives UTF-8: half a surrogate pair, which models do write, is kept by
    escaping it."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def sha256_of(path: Path) -> str:
    """Hexadecimal digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_ahead(read: Callable[[T], R], items: Iterable[T], threads: int = 1) -> Iterator[R]:
    """Each item read, in order; so many following ones are already on their way."""
    with ThreadPoolExecutor(threads, "moaa-read") as pool:
        coming: deque[Future[R]] = deque()
        for item in items:
            coming.append(pool.submit(read, item))
            if len(coming) > threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
