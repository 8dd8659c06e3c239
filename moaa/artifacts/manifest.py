"""The manifest of an artifact: its files with their digests, and how they were made."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any, Self

from pydantic import Field, ValidationError, field_validator

from moaa.errors import ArtifactError, without_stop
from moaa.recipe.schema import Part
from moaa.store.bytes import object_of

SCHEMA_VERSION = 1


def is_plain(name: str) -> bool:
    """Return whether a name stays below the folder that it is downloaded to.

    A name must not have `..` or a root, nor anything that file systems, shells or terminals may
    misread: NUL, control characters, marks that change the direction of writing, half a surrogate
    pair.
    """
    path = PurePosixPath(name)
    return (
        bool(path.parts)
        and not path.is_absolute()
        and not {"..", ".git"} & set(path.parts)
        and str(path) == name
        and "\\" not in name
        and name.isprintable()
        and all(len(part.encode()) <= 255 for part in path.parts)
    )


class File(Part):
    """A file of an artifact. A shard of rows also has `table` and `rows`."""

    name: str
    """The file's path in the folder that the artifact is downloaded to."""
    table: str | None = None
    rows: int | None = None
    size: int
    sha256: str
    key: str | None = None
    """The path below the artifact's uri. Default: the name."""

    @field_validator("name", "key")
    @classmethod
    def _stays_below(cls, value: str | None) -> str | None:
        """Refuse a name that leads out of the download's folder:
        a manifest may come from anywhere."""
        if value is not None and not is_plain(value):
            raise ValueError(f"{value!r} is not a plain relative path")
        return value

    @property
    def path(self) -> str:
        """Path below the artifact's uri."""
        return self.key or self.name


class Parent(Part):
    """An artifact that this one was made from."""

    name: str
    kind: str
    uri: str
    fingerprint: str

    @classmethod
    def of(cls, name: str, manifest: Manifest) -> Self:
        """Return the artifact of this manifest as a parent; `name`: which input it was."""
        return cls(
            name=name, kind=manifest.kind, uri=manifest.uri, fingerprint=manifest.fingerprint
        )


class Manifest(Part):
    """What an artifact is, where its files are, and how it was made."""

    schema_version: int = SCHEMA_VERSION
    kind: str
    stage: str
    name: str
    """The recipe's name."""
    uri: str
    fingerprint: str
    created: str
    """ISO 8601, UTC."""
    files: tuple[File, ...] = ()
    rows: dict[str, int] = Field(default_factory=dict)
    """The number of rows of each table."""
    parents: tuple[Parent, ...] = ()
    part: dict[str, Any] = Field(default_factory=dict)
    """The part of the recipe that the stage was given."""
    ledger: dict[str, Any] = Field(default_factory=dict)
    facts: dict[str, Any] = Field(default_factory=dict)
    """The stage's own numbers for the report."""

    @classmethod
    def from_text(cls, text: str | bytes, where: str) -> Self:
        """Return the manifest in this JSON text.

        Raises ArtifactError if it is not a manifest; the error says `where` the text was found.
        """
        try:
            data = object_of(text)
        except ValueError as error:
            raise ArtifactError(
                f"{where} is not a manifest: {without_stop(error)}. Run the stage that makes it "
                "again."
            ) from error
        if (version := data.get("schema_version")) != SCHEMA_VERSION:
            raise ArtifactError(
                f"{where} has schema version {version}, this moaa reads {SCHEMA_VERSION}. "
                "Use the version of moaa that made it, or run the stage again."
            )
        try:
            return cls.model_validate(data)
        except ValidationError as error:
            wrong = "; ".join(
                f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:5]
            )
            raise ArtifactError(
                f"{where} is not a manifest: {wrong}. Run the stage that makes it again."
            ) from error

    def to_text(self) -> str:
        """Return the JSON text of `manifest.json`, which is also the pipeline's artifact."""
        return json.dumps(self.model_dump(mode="json"), indent=1)
