"""The rows of a prompt source, and its version: a hub data set, S3, a file here or in a package."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moaa.errors import RecipeError
from moaa.prompts import files, hub
from moaa.prompts.files import FILES, READABLE
from moaa.recipe.schema import Prompts, Source
from moaa.store import Missing, Store
from moaa.store.bytes import sha256_of
from moaa.weights.content import versions_digest

SETS = ("evaluation", "preference", "sft")
"""The three sets of prompts of a recipe."""


def every_source(prompts: Prompts) -> list[Source]:
    """Return the sources of all three sets."""
    return [source for name in SETS for source in getattr(prompts, name)]


def rows(source: Source, store: Store) -> Iterator[Any]:
    """Yield the raw rows of `source`, after shuffle, offset and limit. They should be objects.

    Raises RecipeError if the file does not exist or cannot be read.
    """
    if source.shuffle_seed is None:
        found = _all(source, store)
    else:
        held = list(_all(source, store))
        random.Random(source.shuffle_seed).shuffle(held)
        found = iter(held)
    for index, row in enumerate(found):
        if index < source.offset:
            continue
        if source.limit is not None and index >= source.offset + source.limit:
            return
        yield row


def refuse_short(name: str, source: Source, rows: int, number: int) -> None:
    """Check that a source has the slice of this round. Raises RecipeError if it ends before.
    `rows`: how many rows of the slice it has."""
    limit = source.limit or 0
    if rows < limit:
        last = source.offset + limit
        raise RecipeError(
            f"prompts.{name}: source '{source.source}' is too small for round {number}, which "
            f"reads its rows {source.offset} to {last - 1}: it has {rows} of these {limit}. Lower "
            "its limit or rounds.n, or set rounds.prompts to 'same'."
        )


def contents(prompts: Prompts, store: Store) -> dict[str, str]:
    """Return the current content of each source, by its name: another content is another input.

    It is the sha256 of a file here, the versions (ETag and size) of objects on S3, the commit of a
    hub data set. Raises an error for a source that cannot be read: it never counts as unchanged.
    """
    return {_key(source): content(source, store) for source in every_source(prompts)}


def content(source: Source, store: Store) -> str:
    """Return the current content of one source."""
    if source.source.startswith("hub:"):
        return hub.content(source)
    if source.source.startswith("s3://"):
        return versions_digest(_objects(source, store))
    path = local_path(source)
    assert path is not None
    return sha256_of(path)


def local_path(source: Source) -> Path | None:
    """Return the file on this machine, or None for a hub or S3 source.

    Raises RecipeError if it does not exist.
    """
    if source.source.startswith(("hub:", "s3://")):
        return None
    if source.source.startswith("package:"):
        from moaa.weights.local import package_file

        return package_file(source.source.removeprefix("package:"))
    path = Path(source.source).expanduser()
    if not path.is_file():
        raise RecipeError(
            f"prompt source '{source.source}': no such file (looked at {path.absolute()}). "
            "Give a path that exists, hub:NAME for a data set of the Hugging Face hub, s3://… or "
            "package:PATH."
        )
    return path


def _key(source: Source) -> str:
    """Return the name of what is read: one hub data set has several revisions."""
    return source.source + (f"@{source.revision}" if source.revision else "")


def _all(source: Source, store: Store) -> Iterator[Any]:
    if source.source.startswith("hub:"):
        yield from hub.rows(source, hub.content(source))
    elif source.source.startswith("s3://"):
        with tempfile.TemporaryDirectory() as folder:
            for uri in sorted(_objects(source, store)):
                path = Path(folder) / uri.rsplit("/", 1)[1]
                store.download(uri, path)
                yield from files.rows(path)
                path.unlink()
    else:
        local = local_path(source)
        assert local is not None
        yield from files.rows(local)


def _objects(source: Source, store: Store) -> dict[str, str]:
    """Return the objects of a source with their versions: one file, or those of a folder."""
    folder, _, name = source.source.rpartition("/")
    if "*" in name:
        if name[0] != "*" or name[1:] not in FILES:
            raise RecipeError(
                f"prompt source '{source.source}': '{name}' names no files. Write `*` and one of "
                f"{', '.join(FILES)}: all such files below that address, also in its folders."
            )
        found = store.versions(f"{folder}/")
        return {uri: version for uri, version in found.items() if uri.endswith(name[1:])}
    found = store.versions(source.source)
    if source.source.endswith(FILES):
        if source.source not in found:
            raise Missing(f"prompt source '{source.source}' does not exist. Correct the address.")
        return {source.source: found[source.source]}
    return {uri: version for uri, version in found.items() if uri.endswith(READABLE)}
