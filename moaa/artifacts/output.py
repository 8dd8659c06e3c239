"""Writes an artifact: rows to Parquet shards, then the manifest that commits them.

The layout on S3 is described in moaa/artifacts/artifact.py.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from moaa.artifacts.artifact import Artifact
from moaa.artifacts.columns import columns_of
from moaa.artifacts.manifest import File, Manifest, Parent
from moaa.artifacts.table import Column, Row
from moaa.errors import ArtifactError
from moaa.store import Store
from moaa.store.bytes import to_json

SHARD_ROWS = 20_000
SHARD_BYTES = 64 << 20
"""The most JSON text of a shard, before compression. A reader holds one shard in memory."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """The fields of a manifest besides the files: see `Manifest`."""

    stage: str
    name: str
    fingerprint: str
    parents: Sequence[Parent] = ()
    part: Mapping[str, Any] = field(default_factory=dict)
    ledger: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)


class Output:
    """Writes an artifact of this kind below `uri`. Without `commit` there is no result.

    A context manager. Only one thread may write rows at a time.
    """

    def __init__(self, store: Store, uri: str, kind: str) -> None:
        self.store = store
        self.uri = uri.rstrip("/")
        self.kind = kind
        self._tables: dict[str, _Table] = {}
        self._files: list[File] = []
        self._uploads = ThreadPoolExecutor(2, "moaa-upload")
        self._pending: list[Future[File]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._uploads.shutdown(wait=True, cancel_futures=True)

    def write(self, row: Row, table: str = "data") -> None:
        """Append a row. Shards are uploaded in the background as soon as they are full."""
        if table not in self._tables:
            self._tables[table] = _Table(columns_of(self.kind, table))
        buffer = self._tables[table]
        buffer.add(row)
        if len(buffer.shard.ids) >= SHARD_ROWS or buffer.shard.bytes >= SHARD_BYTES:
            self._cut(table, buffer)

    def adopt(self, files: Sequence[File]) -> None:
        """Add files that another program (a training) has already written below `uri`."""
        found = dict(self.store.list(self.uri))
        for file in files:
            size = found.get(f"{self.uri}/{file.path}")
            if size != file.size:
                raise ArtifactError(
                    f"{self.uri}/{file.path} should have {file.size} bytes and "
                    f"{'is missing' if size is None else f'has {size}'}. Run the stage again."
                )
        self._files.extend(files)

    def commit(self, draft: Draft) -> Manifest:
        """Finish all uploads, write the manifest and return it.

        If another attempt has committed already, return its manifest and delete these files.
        """
        for table, buffer in self._tables.items():
            self._cut(table, buffer)
        self._collect(0)
        self._uploads.shutdown()
        manifest = Manifest(
            kind=self.kind,
            stage=draft.stage,
            name=draft.name,
            uri=self.uri,
            fingerprint=draft.fingerprint,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            files=tuple(self._files),
            rows={table: buffer.rows for table, buffer in self._tables.items()},
            parents=tuple(draft.parents),
            part=dict(draft.part),
            ledger=dict(draft.ledger),
            facts=dict(draft.facts),
        )
        if self.store.put_new(f"{self.uri}/manifest.json", manifest.to_text().encode()):
            return manifest
        winner = Artifact.open(self.store, self.uri, draft.fingerprint).manifest
        kept = {file.path for file in winner.files}
        self.store.delete(
            *(f"{self.uri}/{file.path}" for file in self._files if file.path not in kept)
        )
        return winner

    def _cut(self, table: str, buffer: _Table) -> None:
        if buffer.shard.ids:
            # This bounds how many shards wait in memory for a slow store.
            self._collect(3)
            self._pending.append(self._uploads.submit(self._upload, table, buffer.next_shard()))

    def _collect(self, leave: int) -> None:
        """Take the results of finished uploads, oldest first:
        the manifest keeps the order of writing."""
        while len(self._pending) > leave:
            self._files.append(self._pending.pop(0).result())

    def _upload(self, table: str, shard: _Shard) -> File:
        data = shard.to_parquet()
        digest = hashlib.sha256(data).hexdigest()
        file = File(
            name=f"{table}/{shard.number:05d}-{digest[:12]}.parquet",
            table=table,
            rows=len(shard.ids),
            size=len(data),
            sha256=digest,
        )
        self.store.put(f"{self.uri}/{file.path}", data)
        return file


class _Shard:
    """The rows of one Parquet file: their ids, the values of the columns, their JSON text."""

    def __init__(self, number: int, columns: tuple[Column, ...]) -> None:
        self.number = number
        self.columns = columns
        self.ids: list[bytes] = []
        self.values: list[list[Any]] = [[] for _ in columns]
        self.texts: list[bytes] = []
        self.bytes = 0

    def add(self, row: Row) -> None:
        text = to_json(row)
        self.ids.append(_utf8(str(row.get("id", ""))))
        for values, column in zip(self.values, self.columns, strict=True):
            value = column.of(row)
            values.append(_utf8(value) if isinstance(value, str) else value)
        self.texts.append(text)
        self.bytes += len(text)

    def to_parquet(self) -> bytes:
        """Return the file's content. The same rows always give the same content."""
        import pyarrow
        import pyarrow.parquet as parquet

        types = {
            "string": pyarrow.string(),
            "int32": pyarrow.int32(),
            "double": pyarrow.float64(),
            "bool": pyarrow.bool_(),
        }
        columns = {"id": pyarrow.array(self.ids, pyarrow.string())}
        for column, values in zip(self.columns, self.values, strict=True):
            columns[column.name] = pyarrow.array(values, types[column.type])
        columns["row"] = pyarrow.array(self.texts, pyarrow.large_string())
        sink = io.BytesIO()
        parquet.write_table(
            pyarrow.table(columns),
            sink,
            compression="zstd",
            use_dictionary=False,
            write_statistics=False,
        )
        return sink.getvalue()


class _Table:
    """The shard of a table that is being filled, and how many rows the table has so far."""

    def __init__(self, columns: tuple[Column, ...]) -> None:
        self.shard = _Shard(0, columns)
        self.rows = 0

    def add(self, row: Row) -> None:
        self.shard.add(row)
        self.rows += 1

    def next_shard(self) -> _Shard:
        """Return the filled shard and start the next one."""
        full = self.shard
        self.shard = _Shard(full.number + 1, full.columns)
        return full


def _utf8(text: str) -> bytes:
    """Return the text as UTF-8. Half a surrogate pair, which Arrow refuses, is replaced."""
    return text.encode(errors="replace")
