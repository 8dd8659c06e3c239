"""Data sets of the Hugging Face hub, and single files of them."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from moaa.errors import HubAway, RecipeError
from moaa.packages import install_command
from moaa.prompts import files
from moaa.recipe.schema import Source
from moaa.weights.content import digest
from moaa.weights.hub import one_line
from moaa.weights.revisions import commit

_NO_ANSWER = ("ConnectError", "ConnectTimeout", "ReadTimeout", "RemoteProtocolError")
"""Errors of the hub's HTTP client, which has its own copy of the library."""


def content(source: Source) -> str:
    """Return the current version of a data set: the commit of its revision, or a local folder's
    digest.

    Raises HubAway or RecipeError if the hub does not tell it.
    """
    name = _name(source)
    if Path(name).is_dir():
        return digest(Path(name))
    return commit(name, source.revision, "dataset")


def rows(source: Source, revision: str) -> Iterator[Any]:
    """Yield the rows of a data set at this commit, or of one file of it (`hub:OWNER/NAME/FILE`).

    Every error of the hub's libraries becomes one readable line: HubAway if the hub does not
    answer, else RecipeError.
    """
    name, file = _name(source), _file(source)
    if file:
        yield from files.rows(_download(source, name, file, revision))
        return
    try:
        from datasets import load_dataset
        from huggingface_hub import constants
    except ImportError:
        raise RecipeError(
            f"prompt source '{source.source}' needs the package `datasets`: "
            f"{install_command('moaa[hub]')}"
        ) from None
    for library in ("huggingface_hub", "datasets"):
        logging.getLogger(library).setLevel(logging.ERROR)
    # Offline, only data in the cache of `datasets` can be read, and not as a stream.
    offline = constants.HF_HUB_OFFLINE
    pinned = None if offline or Path(name).is_dir() else revision
    try:
        yield from load_dataset(
            name, source.config, split=source.split, streaming=not offline, revision=pinned
        )
    # All exceptions: the libraries below raise dozens of kinds.
    except Exception as error:
        if _is_away(error):
            raise _away(source, error) from None
        raise RecipeError(
            f"prompt source '{source.source}' (config {source.config or 'none'}, split "
            f"'{source.split}') cannot be read from the hub: {one_line(error)}. {_remedy(error)}"
        ) from None


def _download(source: Source, name: str, file: str, revision: str) -> Path:
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise RecipeError(
            f"prompt source '{source.source}' needs the package huggingface-hub: "
            f"{install_command('moaa[hub]')}"
        ) from None
    disable_progress_bars()
    try:
        endpoint = os.environ.get("HF_ENDPOINT")
        return Path(
            hf_hub_download(
                name, file, repo_type="dataset", revision=revision, endpoint=endpoint or None
            )
        )
    except Exception as error:
        if _is_away(error):
            raise _away(source, error) from None
        raise RecipeError(
            f"prompt source '{source.source}' cannot be read from the hub: {one_line(error)}. "
            "Check the name of the file, the revision and HF_TOKEN, or give an s3:// copy."
        ) from None


def _name(source: Source) -> str:
    """Return the data set's name, without the file; or the path of a local folder."""
    name = source.source.removeprefix("hub:")
    return name if Path(name).is_dir() else "/".join(name.split("/")[:2])


def _file(source: Source) -> str:
    return source.source.removeprefix(f"hub:{_name(source)}").strip("/")


def _away(source: Source, error: Exception) -> HubAway:
    return HubAway(
        f"prompt source '{source.source}': the hub does not answer ({one_line(error)}). "
        "Try again later, or give an s3:// copy."
    )


def _is_away(error: BaseException) -> bool:
    """Return whether the hub did not answer, by this error or one that caused it."""
    seen: BaseException | None = error
    while seen is not None:
        status = getattr(getattr(seen, "response", None), "status_code", None)
        if isinstance(seen, ConnectionError | TimeoutError) or (status or 0) >= 500:
            return True
        if status == 429 or type(seen).__name__ in _NO_ANSWER:
            return True
        seen = seen.__cause__ or seen.__context__
    return False


def _remedy(error: Exception) -> str:
    text = str(error)
    if "script" in text.lower():
        return (
            "A data set with a loading script is not run. Set `revision: refs/convert/parquet`, "
            "which most of them have, or give an s3:// copy."
        )
    if "config" in text.lower():
        return "Set `config` of this source to one of its configurations."
    return "Check name, config, split, revision and HF_TOKEN, or give an s3:// copy."
