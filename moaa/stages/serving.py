"""Serves the result of a training: the recipe's target with other weights."""

from __future__ import annotations

from moaa.artifacts import Artifact
from moaa.recipe.schema import Model


def tuned(target: Model, name: str, artifact: Artifact) -> tuple[str, Model]:
    """Return the name (`llama+sft`) and the model that serves the target with these weights.

    It is asked as it was trained: without a system role if its template has none.
    """
    system_role = target.system_role and artifact.manifest.facts.get("system_role", True)
    served = target.model_copy(
        update={
            "source": artifact.uri,
            "revision": None,
            "endpoint": None,
            "system_role": system_role,
        }
    )
    return f"{name}+{artifact.manifest.stage}", served
