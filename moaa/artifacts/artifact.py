"""What travels between stages: a manifest that names the data's files on S3 with their digests,
written last.

Layout below an artifact's prefix:
    manifest.json                    the commit; a prefix without it is unfinished and never read as a result
    TABLE/00000-DIGEST.parquet       rows, two columns: `id`, and `row`, the row as JSON text (any shape, exact, searchable)
    ATTEMPT/NAME                     files such as a model's weights, apart for every attempt to write the artifact
Names never collide with different content, so an attempt that lost the commit cannot damage the one
that won.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, TypeVar

from moaa.artifacts.manifest import File, Manifest, Parent
from moaa.errors import ArtifactError
from moaa.store import Missing, Store
from moaa.store.bytes import read_ahead, sha256_of, to_json

T = TypeVar("T")
R = TypeVar("R")

SHARD_ROWS = 20_000
SHARD_BYTES = 64 << 20
"""Of JSON text, before compression: what a reader holds in memory at a time."""


class Artifact:
    """A committed artifact: its manifest, and the store to read it from."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    @classmethod
    def open(cls, store: Store, uri_or_text: str) -> Self:
        """The artifact below an s3:// prefix, or the one whose manifest this text is. Raises
        `Missing` where none is."""
        if uri_or_text.lstrip().startswith("{"):
            return cls(store, Manifest.from_text(uri_or_text, "The input"))
        uri = uri_or_text.strip().rstrip("/")
        try:
            return cls(
                store, Manifest.from_text(store.get(f"{uri}/manifest.json"), f"{uri}/manifest.json")
            )
        except Missing as error:
            raise Missing(
                f"{uri} has no manifest.json: it is unfinished, or was never made. Run its stage."
            ) from error

    @property
    def fingerprint(self) -> str:
        return self.manifest.fingerprint

    @property
    def uri(self) -> str:
        return self.manifest.uri

    def rows(
        self, table: str = "data", columns: Collection[str] | None = None
    ) -> Iterator[dict[str, Any]]:
        """The rows of a table in the order they were written; only these top-level fields where
        `columns` is given.

        One shard is read ahead. Each shard's digest is verified before its first row is given:
        `ArtifactError` names the file that is missing, torn or changed. A table without rows has no
        shards, and gives none.
        """
        shards = [file for file in self.manifest.files if file.table == table]
        for texts in read_ahead(self._texts, shards):
            for text in texts:
                row = json.loads(text)
                yield (
                    row if columns is None else {name: row[name] for name in columns if name in row}
                )

    def download(self, directory: Path, *, progress: Callable[[int], None] | None = None) -> Path:
        """All files below this directory, digests verified. Files that are there and right are not
        fetched again."""
        with ThreadPoolExecutor(4, "moaa-download") as pool:
            for _ in pool.map(
                lambda file: self._fetch(file, directory / file.name, progress), self.manifest.files
            ):
                pass
        return directory

    def _texts(self, file: File) -> list[str]:
        import pyarrow.parquet as parquet

        where = f"{self.uri}/{file.path}"
        try:
            data = self.store.get(where)
        except Missing as error:
            raise ArtifactError(_broken(where, "is missing")) from error
        _verify(where, file, len(data), hashlib.sha256(data).hexdigest())
        return parquet.read_table(io.BytesIO(data), columns=["row"]).column("row").to_pylist()

    def _fetch(self, file: File, path: Path, progress: Callable[[int], None] | None) -> None:
        if path.is_file() and path.stat().st_size == file.size and sha256_of(path) == file.sha256:
            if progress:
                progress(file.size)
            return
        where = f"{self.uri}/{file.path}"
        unverified = path.with_name(f".{path.name}.{secrets.token_hex(4)}.unverified")
        try:
            self.store.download(where, unverified, progress=progress)
            _verify(where, file, unverified.stat().st_size, sha256_of(unverified))
            unverified.replace(path)
        except Missing as error:
            raise ArtifactError(_broken(where, "is missing")) from error
        finally:
            unverified.unlink(missing_ok=True)


class Output:
    """An artifact that is being written below `uri`. A context manager: leaving it without `commit`
    leaves no result.

    Rows may be written from one thread at a time.
    """

    def __init__(self, store: Store, uri: str) -> None:
        self.store = store
        self.uri = uri.rstrip("/")
        self._attempt = secrets.token_hex(4)
        self._tables: dict[str, _Table] = {}
        self._files: list[File] = []
        self._uploads = ThreadPoolExecutor(2, "moaa-upload")
        self._pending: list[Future[File]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._uploads.shutdown(wait=True, cancel_futures=True)

    def write(self, row: Mapping[str, Any], table: str = "data") -> None:
        """Append a row. Rows are gathered to shards, which are uploaded in the background."""
        buffer = self._tables.setdefault(table, _Table())
        buffer.add(str(row.get("id", "")).encode(errors="replace"), to_json(row))
        if len(buffer.ids) >= SHARD_ROWS or buffer.bytes >= SHARD_BYTES:
            self._cut(table, buffer)

    def add_file(self, path: Path, name: str) -> None:
        """Upload a file, to be called `name` in the artifact."""
        self._pending.append(self._uploads.submit(self._upload, path, name))

    def adopt(self, files: Sequence[File]) -> None:
        """Take files into the artifact that somebody else (a training) has already written below
        `uri`."""
        found = dict(self.store.list(self.uri))
        for file in files:
            size = found.get(f"{self.uri}/{file.path}")
            if size != file.size:
                raise ArtifactError(
                    f"{self.uri}/{file.path} should have {file.size} bytes and "
                    f"{'is missing' if size is None else f'has {size}'}. Run the stage again."
                )
        self._files.extend(files)

    def commit(
        self,
        *,
        kind: str,
        stage: str,
        name: str,
        fingerprint: str,
        parents: Sequence[Parent] = (),
        part: Mapping[str, Any] | None = None,
        ledger: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> Manifest:
        """Finish all uploads, then write the manifest, unless another attempt already has: then the
        winner's is returned."""
        for table, buffer in self._tables.items():
            self._cut(table, buffer)
        self._settle(0)
        self._uploads.shutdown()
        manifest = Manifest(
            kind=kind,
            stage=stage,
            name=name,
            uri=self.uri,
            fingerprint=fingerprint,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            files=tuple(self._files),
            rows={table: buffer.rows for table, buffer in self._tables.items()},
            parents=tuple(parents),
            part=dict(part or {}),
            ledger=dict(ledger or {}),
            facts=dict(facts or {}),
        )
        if self.store.put_new(f"{self.uri}/manifest.json", manifest.to_text().encode()):
            return manifest
        winner = Artifact.open(self.store, self.uri).manifest
        kept = {file.path for file in winner.files}
        self.store.delete(
            *(f"{self.uri}/{file.path}" for file in self._files if file.path not in kept)
        )
        return winner

    def _cut(self, table: str, buffer: _Table) -> None:
        if buffer.ids:
            self._settle(3)  # bounds what waits in memory for a slow store
            ids, texts, number = buffer.take()
            self._pending.append(self._uploads.submit(self._write_shard, table, number, ids, texts))

    def _settle(self, leave: int) -> None:
        """Take in finished uploads, oldest first, so that the manifest's order is the order of
        writing."""
        while len(self._pending) > leave:
            self._files.append(self._pending.pop(0).result())

    def _write_shard(self, table: str, number: int, ids: list[bytes], texts: list[bytes]) -> File:
        import pyarrow
        import pyarrow.parquet as parquet

        sink = io.BytesIO()
        columns = pyarrow.table(
            {
                "id": pyarrow.array(ids, pyarrow.string()),
                "row": pyarrow.array(texts, pyarrow.large_string()),
            }
        )
        parquet.write_table(
            columns, sink, compression="zstd", use_dictionary=False, write_statistics=False
        )
        data = sink.getvalue()
        digest = hashlib.sha256(data).hexdigest()
        file = File(
            name=f"{table}/{number:05d}-{digest[:12]}.parquet",
            table=table,
            rows=len(ids),
            size=len(data),
            sha256=digest,
        )
        self.store.put(f"{self.uri}/{file.path}", data)
        return file

    def _upload(self, path: Path, name: str) -> File:
        file = File(
            name=name,
            size=path.stat().st_size,
            sha256=sha256_of(path),
            key=f"{self._attempt}/{name}",
        )
        self.store.upload(path, f"{self.uri}/{file.path}")
        return file


class _Table:
    """Rows of one table that wait for their shard, and how many there were in all."""

    def __init__(self) -> None:
        self.ids: list[bytes] = []
        self.texts: list[bytes] = []
        self.bytes = 0
        self.rows = 0
        self.shards = 0

    def add(self, id: bytes, text: bytes) -> None:
        self.ids.append(id)
        self.texts.append(text)
        self.bytes += len(text)
        self.rows += 1

    def take(self) -> tuple[list[bytes], list[bytes], int]:
        taken = self.ids, self.texts, self.shards
        self.ids, self.texts, self.bytes, self.shards = [], [], 0, self.shards + 1
        return taken


def _verify(where: str, file: File, size: int, digest: str) -> None:
    if size != file.size:
        raise ArtifactError(_broken(where, f"has {size} bytes, its manifest says {file.size}"))
    if digest != file.sha256:
        raise ArtifactError(
            _broken(where, f"has the digest {digest[:12]}…, its manifest says {file.sha256[:12]}…")
        )


def _broken(where: str, what: str) -> str:
    return f"{where} {what}. Restore the file, or delete the manifest.json beside it and run the stage again."
