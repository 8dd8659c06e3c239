"""Models of the Hugging Face hub as folders that an engine can load."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from moaa.errors import RecipeError

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
    """Return what `fetch` downloads with the hub's own function. Every failure is a RecipeError."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined, unused-ignore]
        from huggingface_hub.utils.tqdm import disable_progress_bars
    except ImportError:
        raise RecipeError(
            f"'{name}' is a hub id, which needs the package huggingface-hub: "
            "pip install 'moaa[hub]'"
        ) from None
    if not bars:
        disable_progress_bars()  # a stage has its own
    try:
        return fetch(snapshot_download)
    except (HTTPError, OSError, ValueError) as error:
        raise RecipeError(
            f"'{name}' cannot be downloaded from the hub: {error}. Check the name, the revision, "
            "HF_TOKEN (gated models), HF_HUB_OFFLINE and the free disk space."
        ) from error
