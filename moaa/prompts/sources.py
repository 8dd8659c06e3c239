"""Rows of a prompt source: a hub data set, S3, a local file, or a file in a Python package."""

from __future__ import annotations

import hashlib
import json
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moaa.errors import RecipeError
from moaa.recipe.schema import Prompts, Source
from moaa.store import Store

READABLE = (".jsonl", ".json", ".parquet")
SETS = ("evaluation", "preference", "sft")
"""The three sets of prompts of a recipe."""


def every_source(prompts: Prompts) -> list[Source]:
    """Return the sources of all three sets."""
    return [source for name in SETS for source in getattr(prompts, name)]


def rows(source: Source, store: Store) -> Iterator[Any]:
    """Yield the raw rows of `source`, after shuffle, offset and limit: objects, if all is well.

    Raises RecipeError if there is no such file, or it cannot be read.
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


def digest(source: Source) -> str | None:
    """Return the sha256 of a local file, so that a changed file is another input.

    None for hub and S3: what they name must not change.
    """
    path = local_path(source)
    if path is None:
        return None
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def local_path(source: Source) -> Path | None:
    """Return the file on this machine, or None for a hub or S3 source.

    Raises RecipeError if it is not there.
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


def _all(source: Source, store: Store) -> Iterator[Any]:
    if source.source.startswith("hub:"):
        yield from _hub(source)
    elif source.source.startswith("s3://"):
        with tempfile.TemporaryDirectory() as folder:
            uris = (
                [source.source]
                if source.source.endswith(READABLE)
                else [uri for uri, _ in store.list(source.source)]
            )
            for uri in sorted(uri for uri in uris if uri.endswith(READABLE)):
                path = Path(folder) / uri.rsplit("/", 1)[1]
                store.download(uri, path)
                yield from _file(path)
                path.unlink()
    else:
        local = local_path(source)
        assert local is not None
        yield from _file(local)


def _file(path: Path) -> Iterator[Any]:
    readers = {".parquet": _parquet, ".json": _json, ".jsonl": _jsonl}
    if path.suffix not in readers:
        raise RecipeError(
            f"prompt source '{path}': {path.suffix or 'no suffix'} is not readable; use one of "
            f"{', '.join(READABLE)}"
        )
    yield from readers[path.suffix](path)


def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()
    # OSError is Arrow's for damaged pages.
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecipeError(
            f"{path.name}: not a whole Parquet file ({error}). Write or copy it again."
        ) from None


def _json(path: Path) -> Iterator[Any]:
    data = path.read_bytes()
    try:
        found = json.loads(data)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        line = (
            error.lineno
            if isinstance(error, json.JSONDecodeError)
            else data.count(b"\n", 0, error.start) + 1
        )
        raise RecipeError(
            f"{path.name}:{line}: not JSON ({error}). One list of objects is expected; call a "
            "file with an object a line .jsonl."
        ) from None
    if not isinstance(found, list):
        kind = "an object" if isinstance(found, dict) else "no list"
        raise RecipeError(
            f"{path.name}:1: the file holds {kind}. One list of objects is expected, [{{…}}, "
            f"{{…}}]."
        )
    yield from found


def _jsonl(path: Path) -> Iterator[Any]:
    # As bytes: json finds the encoding, and the error of a wrong byte has its line.
    with path.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                try:
                    row = json.loads(line)
                except ValueError as error:
                    raise RecipeError(
                        f"{path.name}:{number}: not JSON ({error}). One JSON object a line is "
                        "expected."
                    ) from None
                yield row


def _hub(source: Source) -> Iterator[Any]:
    name = source.source.removeprefix("hub:")
    try:
        from datasets import load_dataset
    except ImportError:
        raise RecipeError(
            f"prompt source '{source.source}' needs the package `datasets`: pip install 'moaa[hub]'"
        ) from None
    try:
        yield from load_dataset(name, split=source.split, streaming=True)
    except (OSError, ValueError) as error:
        raise RecipeError(
            f"prompt source '{source.source}' (split '{source.split}') cannot be read from the "
            f"hub: {error}. Check name, split and HF_TOKEN, or give an s3:// copy."
        ) from None
