"""The immutable folders of published models: `<root>/models/<name>/<version>/`.

A version is an artifact of kind `model` at that address. Its manifest is written last, so a folder
without one is not complete, and does not count as a version.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from moaa.artifacts import Artifact, Draft, File, Output
from moaa.store import Store

MODELS: Final = "models"
"""The folder of all published models, below the root of the store."""


@dataclass(frozen=True, slots=True)
class Version:
    """One published model."""

    name: str
    version: str
    uri: str

    @classmethod
    def of(cls, store: Store, name: str, version: str) -> Self:
        """Return the version of this name, whether it exists or not."""
        return cls(name, version, f"{folder(store, name)}/{version}")


def folder(store: Store, name: str) -> str:
    """Return the address of the folder of a published model."""
    return f"{store.root}/{MODELS}/{name}"


def version_at(uri: str) -> tuple[str, Version] | None:
    """Return the root of the store and the version, for the address of a published version; None
    for another address."""
    found = re.fullmatch(rf"(s3://.+)/{MODELS}/([^/]+)/([^/]+)", uri.rstrip("/"))
    return (found[1], Version(found[2], found[3], found[0])) if found else None


def versions(store: Store, name: str) -> list[Artifact]:
    """Return the complete versions of a published model, oldest first."""
    below = f"{folder(store, name)}/"
    found = [
        Artifact.open(store, uri.removesuffix("/manifest.json"))
        for uri, _ in store.list(below)
        if re.fullmatch(r"[^/]+/manifest\.json", uri.removeprefix(below))
    ]
    return sorted(found, key=lambda each: (each.manifest.created, each.uri))


def write_version(
    version: Version, model: Artifact, texts: Mapping[str, str], facts: Mapping[str, Any]
) -> None:
    """Copy the model's files inside of S3, add `texts` (by file name), and write the manifest.

    An existing version stays as it is. If it is killed before its end, the next call writes the
    same files again.
    """
    store = model.store
    if store.exists(f"{version.uri}/manifest.json"):
        return
    with Output(store, version.uri, "model") as out:
        files = []
        for file in model.manifest.files:
            if file.name not in texts:
                store.copy(f"{model.uri}/{file.path}", f"{version.uri}/{file.name}")
                files.append(File(name=file.name, size=file.size, sha256=file.sha256))
        for name, text in texts.items():
            data = text.encode()
            store.put(f"{version.uri}/{name}", data)
            digest = hashlib.sha256(data).hexdigest()
            files.append(File(name=name, size=len(data), sha256=digest))
        out.adopt(files)
        out.commit(
            Draft(
                stage="publish",
                name=version.name,
                fingerprint=version.version,
                parents=[],
                facts=dict(facts),
            )
        )
