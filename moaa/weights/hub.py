"""Models of the Hugging Face hub as folders that an engine can load."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal
from urllib.parse import urlsplit

from moaa.errors import HubAway, RecipeError, without_stop
from moaa.packages import install_command

OTHER_FORMATS: Final = (
    "original/*",
    "metal/*",
    "onnx/*",
    "openvino/*",
    "coreml/*",
    "*.pth",
    "*.gguf",
    "*.onnx",
    "*.msgpack",
    "*.h5",
    "*.ot",
    "*.tflite",
)
"""Copies of the weights for other programs: with them some models are twice as large."""
PICKLED: Final = ("*.bin", "*.pt")
"""Weights that are downloaded only if the model has none in safetensors."""


def cache() -> Path:
    """Return the folder of the hub's cache: HF_HUB_CACHE, else below HF_HOME or ~/.cache."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return Path.home() / ".cache" / "huggingface" / "hub"
    return Path(HF_HUB_CACHE)


def endpoint() -> str:
    """Return the hub's address: HF_ENDPOINT, else the one of the package."""
    from huggingface_hub import constants

    return os.environ.get("HF_ENDPOINT") or constants.ENDPOINT


def is_offline() -> bool:
    """Return whether HF_HUB_OFFLINE says that the hub is not to be asked."""
    from huggingface_hub import constants

    given = os.environ.get("HF_HUB_OFFLINE")
    return bool(constants.HF_HUB_OFFLINE or given in ("1", "true", "True"))


def away(name: str, kind: Literal["model", "dataset"], error: Exception) -> HubAway:
    """Return the error of a hub that does not answer, with the name that it was asked for."""
    host = urlsplit(endpoint()).hostname or endpoint()
    return HubAway(
        f"{asked_for(name, kind)}, and the hub ({host}) does not answer: {one_line(error)}. Try "
        "again later, correct HF_ENDPOINT, or set HF_HUB_OFFLINE=1 to use what its cache has"
    )


def asked_for(name: str, kind: Literal["model", "dataset"]) -> str:
    """Return why the hub is asked for this name: a path with a typing error looks like a hub id."""
    if kind == "dataset":
        return f"data set '{name}' is on the hub"
    return f"'{name}' is no folder here, so it is taken for a hub id"


def one_line(error: Exception) -> str:
    """Return the message of a library's error, on one line."""
    text = " ".join(str(error).split()) or type(error).__name__
    return (text if len(text) <= 300 else f"{text[:300]}…").rstrip(". ")


def download(
    name: str, revision: str | None, folder: Path | None = None, *, weights: Sequence[str] = PICKLED
) -> Path:
    """Download a model and return its folder: `folder`, or one in the hub's cache.

    Files that are already there are not downloaded again. Offline (HF_HUB_OFFLINE, or no
    connection) the cache's files are used. Into the cache, files that match `weights` are
    downloaded only if the model has no others; a `folder` gets all files. Raises RecipeError if the
    model cannot be downloaded.
    """

    def fetch(snapshot_download: Callable[..., str]) -> Path:
        if folder:
            return Path(snapshot_download(name, revision=revision, local_dir=folder))
        ignored = [*OTHER_FORMATS, *weights]
        found = Path(snapshot_download(name, revision=revision, ignore_patterns=ignored))
        if weights and not any(found.glob("*.safetensors")):
            ignored = list(OTHER_FORMATS)
            found = Path(snapshot_download(name, revision=revision, ignore_patterns=ignored))
        return found

    return _downloaded(name, fetch, bars=folder is not None)


def download_files(name: str, revision: str | None, files: Sequence[str]) -> Path:
    """Download those of the `files` that a model has; return its folder in the hub's cache.

    Raises RecipeError if the model cannot be reached.
    """
    return _downloaded(
        name,
        lambda snapshot_download: Path(
            snapshot_download(name, revision=revision, allow_patterns=list(files))
        ),
    )


def _downloaded(
    name: str, fetch: Callable[[Callable[..., str]], Path], *, bars: bool = False
) -> Path:
    """Return what `fetch` downloads with the hub's own function.

    Raises HubAway if the hub does not answer, RecipeError for every other failure.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined, unused-ignore]
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise RecipeError(
            f"{asked_for(name, 'model')}, which needs the package huggingface-hub: "
            f"{install_command('moaa[hub]')}"
        ) from None
    if not bars:
        disable_progress_bars()  # a stage has its own
    try:
        return fetch(snapshot_download)
    except (HTTPError, OSError, ValueError) as error:
        if _is_away(error):
            raise away(name, "model", error) from error
        raise RecipeError(
            f"{asked_for(name, 'model')}, and it cannot be downloaded: {without_stop(error)}. "
            "Check the name, the revision, HF_TOKEN (gated models), HF_HUB_OFFLINE and the free "
            "disk space."
        ) from error


def _is_away(error: Exception) -> bool:
    """Return whether a download failed since the hub did not answer it, and not for good."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined, unused-ignore]
        HfHubHTTPError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    if is_offline():
        return False
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in (429, *range(500, 600))
    # A connection that failed; or the cache does not have what it would have given.
    return isinstance(error, HTTPError | LocalEntryNotFoundError)
