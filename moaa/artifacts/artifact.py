"""Reads an artifact: the rows of its tables, and its files.

Layout below an artifact's prefix on S3:
    manifest.json                    the commit: without it the artifact is unfinished, never read
    TABLE/00000-DIGEST.parquet       a shard of rows: `id`, declared columns, `row` as JSON text
    model-ATTEMPT/NAME               a model's files, from the training; one folder per attempt
    journal/                         answers of an unfinished stage (moaa/journal); then deleted
Files with different content never have the same name, so an attempt that lost the commit cannot
damage the one that won.
"""

from __future__ import annotations

import hashlib
import io
import json
import secrets
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Self

from moaa.artifacts.manifest import File, Manifest
from moaa.errors import ArtifactError
from moaa.store import Missing, Store
from moaa.store.bytes import read_ahead, sha256_of


class Artifact:
    """A committed artifact: its manifest, and the store to read it from."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self.store = store
        self.manifest = manifest

    @classmethod
    def open(cls, store: Store, uri_or_text: str, fingerprint: str | None = None) -> Self:
        """Return the artifact below an s3:// prefix, or the one whose manifest this text is.

        Raises `Missing` if there is no manifest. Raises ArtifactError if it is for another address
        or another `fingerprint`, or if the text differs from the committed one.
        """
        if uri_or_text.lstrip().startswith("{"):
            given = Manifest.from_text(uri_or_text, "The input")
            if not f"{given.uri}/".startswith(f"{store.root}/"):
                raise ArtifactError(
                    f"The input is a manifest of {given.uri}, which is not below {store.root}. "
                    "Run the stage that makes it again, with this store.root."
                )
            committed = cls.open(store, given.uri, given.fingerprint)
            if committed.manifest != given:
                raise ArtifactError(
                    f"The input is not the manifest that was committed at {given.uri}. Run the "
                    "stage that makes it again."
                )
            return committed
        uri = uri_or_text.strip().rstrip("/")
        where = f"{uri}/manifest.json"
        try:
            manifest = Manifest.from_text(store.get(where), where)
        except Missing as error:
            raise Missing(
                f"{uri} has no manifest.json: it is unfinished, or was never made. Run its stage."
            ) from error
        if manifest.uri != uri:
            raise ArtifactError(
                f"{where} is the manifest of {manifest.uri}: it was copied or changed. Name that "
                "address, or, for a copy of a model, delete the manifest.json beside it."
            )
        if fingerprint is not None and manifest.fingerprint != fingerprint:
            raise ArtifactError(
                f"{where} has the fingerprint {manifest.fingerprint}, not {fingerprint}: it was "
                "changed. Delete it, and run the stage again."
            )
        return cls(store, manifest)

    @property
    def fingerprint(self) -> str:
        """The hash of everything that decides the artifact's content."""
        return self.manifest.fingerprint

    @property
    def uri(self) -> str:
        """The s3:// prefix below which its files are."""
        return self.manifest.uri

    def rows(self, table: str = "data") -> Iterator[dict[str, Any]]:
        """Yield the rows of a table, in the order in which they were written.

        One shard is read ahead. Each shard's digest is verified before its first row is yielded:
        `ArtifactError` names the file that is missing or changed.
        """
        shards = [file for file in self.manifest.files if file.table == table]
        for texts in read_ahead(self._texts, shards):
            yield from map(json.loads, texts)

    def text(self, name: str) -> str:
        """Return a text file, after its digest was verified.

        Raises `Missing` if the artifact has no such file, ArtifactError if it is not there or not
        as it was written.
        """
        file = next((each for each in self.manifest.files if each.name == name), None)
        if file is None:
            raise Missing(f"{self.uri} has no {name}")
        return self._data(file).decode(errors="replace")

    def download(self, directory: Path, *, progress: Callable[[int], None] | None = None) -> Path:
        """Download all files below `directory`, verify their digests, return `directory`.

        A file that is already there with the right digest is not downloaded again.
        """
        with ThreadPoolExecutor(4, "moaa-download") as pool:
            for _ in pool.map(
                lambda file: self._fetch(file, directory / file.name, progress), self.manifest.files
            ):
                pass
        return directory

    def _texts(self, file: File) -> list[str]:
        import pyarrow.parquet as parquet

        table = parquet.read_table(io.BytesIO(self._data(file)), columns=["row"])
        texts: list[str] = table.column("row").to_pylist()
        return texts

    def _data(self, file: File) -> bytes:
        where = f"{self.uri}/{file.path}"
        try:
            data = self.store.get(where)
        except Missing as error:
            raise ArtifactError(_broken(where, "is missing")) from error
        _verify(where, file, len(data), hashlib.sha256(data).hexdigest())
        return data

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


def _verify(where: str, file: File, size: int, digest: str) -> None:
    if size != file.size:
        raise ArtifactError(_broken(where, f"has {size} bytes, its manifest says {file.size}"))
    if digest != file.sha256:
        raise ArtifactError(
            _broken(where, f"has the digest {digest[:12]}…, its manifest says {file.sha256[:12]}…")
        )


def _broken(where: str, what: str) -> str:
    return (
        f"{where} {what}. Restore the file, or delete the manifest.json beside it and run the "
        "stage again."
    )
