"""Serving what a training made: the recipe's target with other weights."""

from __future__ import annotations

from moaa.artifacts import Artifact
from moaa.recipe.schema import Model


def tuned(target: Model, name: str, artifact: Artifact) -> tuple[str, Model]:
    """Name and serving of the target with the weights of `artifact` (its stage is in the name:
    `llama+sft`)."""
    served = target.model_copy(update={"source": artifact.uri, "revision": None, "endpoint": None})
    return f"{name}+{artifact.manifest.stage}", served
