"""Serving what a training made: the recipe's target with other weights."""

from __future__ import annotations

from moaa.artifacts import Artifact
from moaa.recipe.schema import Model


def tuned(target: Model, name: str, artifact: Artifact) -> tuple[str, Model]:
    """Return the name (`llama+sft`) and the model that serves the target with these weights."""
    served = target.model_copy(update={"source": artifact.uri, "revision": None, "endpoint": None})
    return f"{name}+{artifact.manifest.stage}", served
