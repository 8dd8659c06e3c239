"""The images of the components: those of this version, or `runtime.cluster.images`."""

from __future__ import annotations

from typing import Literal

from moaa import __version__
from moaa.recipe.schema import Runtime

Image = Literal["core", "serve", "train"]

CORE = f"moaa/core:{__version__}"
SERVE = f"moaa/serve:{__version__}"
TRAIN = f"moaa/train:{__version__}"
_OURS: dict[Image, str] = {"core": CORE, "serve": SERVE, "train": TRAIN}


def of(runtime: Runtime, image: Image) -> str:
    """Return the image's reference for a recipe's runtime."""
    return getattr(runtime.cluster.images, image) or _OURS[image]
