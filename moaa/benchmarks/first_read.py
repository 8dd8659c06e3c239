"""Notes a benchmark's data at the first reading, so that a later change is noticed.

The digests of some published questions are known (`Benchmark.is_published`). For other data the
first reading is noted in the store, below `evaluation/sources/`, and later ones are compared.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from moaa.benchmarks.rows import READ_FROM, ROW_NUMBER
from moaa.errors import RecipeError, StoreError, without_stop
from moaa.recipe.schema import Source
from moaa.store import Store
from moaa.store.bytes import object_of

PUBLISHED = "the published questions"


@dataclass(slots=True)
class Reading:
    """One source while it is read. After an iteration over it, `digest` is that of all rows, in
    order. Each row names its source and its number there (`READ_FROM`, `ROW_NUMBER`). Raises
    RecipeError for a row that is not an object."""

    source: Source
    given: Iterable[Any]
    rows: int = 0
    columns: set[str] = field(default_factory=set)
    """The columns of the rows that were read."""
    _sum: Any = field(default_factory=hashlib.sha256)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for row in self.given:
            text = json.dumps(row, sort_keys=True, default=str)
            self._sum.update(text.encode("utf-8", "surrogatepass") + b"\n")
            self.rows += 1
            if not isinstance(row, Mapping):
                raise RecipeError(
                    f"row {self.rows} of {self.source.source} is {text[:60]}: expected an object "
                    "with the benchmark's columns. Give the published rows."
                )
            self.columns |= row.keys()
            yield {**row, READ_FROM: self.source.source, ROW_NUMBER: self.rows}

    @property
    def digest(self) -> str:
        """The sha256 of the rows that were read, in order."""
        return str(self._sum.hexdigest())


def compared(readings: Sequence[Reading], store: Store) -> str:
    """Return for the report how the data compare with the first reading of the same sources. Note
    the sources that are read for the first time."""
    pinned = all(each.source.revision for each in readings)
    how = "pinned by revision" if pinned else "not pinned"
    return "; ".join([how, *(_compared(each, store) for each in readings)])


def _compared(reading: Reading, store: Store) -> str:
    source = reading.source
    name = json.dumps([source.source, source.config, source.split, source.revision])
    address = (
        f"{store.root}/evaluation/sources/{hashlib.sha256(name.encode()).hexdigest()[:16]}.json"
    )
    now = {
        "source": source.source,
        "revision": source.revision,
        "sha256": reading.digest,
        "rows": reading.rows,
        "read": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    text = f"sha256 {reading.digest[:16]} of {reading.rows:,} rows"
    try:
        if store.put_new(address, json.dumps(now, indent=1).encode()):
            return f"{text}, first read now"
        first = object_of(store.get(address))
        digest, day = str(first["sha256"]), str(first["read"])[:10]
    except (StoreError, ValueError, KeyError) as error:
        return f"{text}, not compared with an earlier reading ({without_stop(error)})"
    if digest == reading.digest:
        return f"{text}, as first read on {day}"
    return f"{text}, OTHER rows than first read on {day} ({digest[:16]})"
