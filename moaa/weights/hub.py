"""Models of the Hugging Face hub, as folders that an engine can load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from moaa.errors import RecipeError

NOT_SERVED: Final = (
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
"""The same weights once more, for other programs: with them some models are twice as large."""
PICKLED: Final = ("*.bin", "*.pt")
"""Weights that are only fetched where there are none in safetensors."""


def cache() -> Path:
    """The folder of the hub's own cache (HF_HUB_CACHE, else in HF_HOME, else ~/.cache/huggingface)."""
    try:
        from huggingface_hub.constants import HF_HUB_CACHE
    except ImportError:
        return Path.home() / ".cache" / "huggingface" / "hub"
    return Path(HF_HUB_CACHE)


def download(
    name: str, revision: str | None, folder: Path | None = None, *, weights: Sequence[str] = PICKLED
) -> Path:
    """The folder with the model's files: `folder`, else the hub's own cache (HF_HOME). What is
    there is not fetched again.

    Offline (HF_HUB_OFFLINE, or no connection) it is what the cache holds. `weights`: left out
    unless there are no others; what is asked for in a `folder` of its own comes whole. Raises
    RecipeError where the model cannot be fetched.
    """
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HTTPError  # what a broken connection raises, too
        from huggingface_hub.utils import disable_progress_bars
    except ImportError:
        raise RecipeError(
            f"'{name}' is a hub id, which needs the package huggingface-hub: pip install "
            "'moaa[hub]'"
        ) from None
    try:
        if folder:
            return Path(snapshot_download(name, revision=revision, local_dir=folder))
        disable_progress_bars()  # a stage shows its own
        found = Path(
            snapshot_download(name, revision=revision, ignore_patterns=[*NOT_SERVED, *weights])
        )
        if weights and not any(found.glob("*.safetensors")):
            found = Path(
                snapshot_download(name, revision=revision, ignore_patterns=list(NOT_SERVED))
            )
    except (HTTPError, OSError, ValueError) as error:
        raise RecipeError(
            f"'{name}' cannot be fetched from the hub: {error}. Check the name, the revision, "
            "HF_TOKEN (gated models), "
            "HF_HUB_OFFLINE and the free space."
        ) from error
    return found
