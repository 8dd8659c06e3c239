"""The fields of a recipe that a compiled pipeline fixed.
A run's own recipe cannot change its pods."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from moaa.declaration import Declaration
from moaa.errors import RecipeError
from moaa.placement import pods
from moaa.recipe.next_round import planned
from moaa.recipe.schema import Recipe


def fields(recipe: Recipe, stages: Iterable[Declaration]) -> dict[str, Any]:
    """Return each field of the recipe that decides about a pod, by its path."""
    runtime, stages = recipe.runtime, tuple(stages)
    found: dict[str, Any] = {
        "pools": {
            name: pool.model_dump(mode="json", exclude={"gpu_hour_usd"})
            for name, pool in recipe.pools.items()
        },
        "runtime": {
            "cluster": runtime.cluster.model_dump(mode="json"),
            "engines": {"kind": runtime.engines.kind},
            "launcher": runtime.launcher.model_dump(
                mode="json", include={"kind", "ranks", "device", "pool"}
            ),
            "secret_envs": sorted(runtime.secret_envs),
        },
        "store": recipe.store.model_dump(
            mode="json", include={"access_key_env", "secret_key_env", "session_token_env"}
        ),
        "models": {
            name: {"endpoint": {"key_env": model.endpoint.key_env} if model.endpoint else None}
            for name, model in recipe.models.items()
        },
        "stages": {
            stage.name: _role(recipe, stage) for stage in stages if stage.serves or stage.trains
        },
    }
    for number, later in enumerate(planned(recipe)[1:], 2):
        found[f"round {number}"] = {
            stage.name: _role(later, stage) for stage in stages if stage.serves or stage.trains
        }
    return dict(_flat(found))


def _role(recipe: Recipe, stage: Declaration) -> dict[str, Any]:
    """Return the role of the stage's own pod, which also depends on the models that it asks."""
    try:
        role = pods.role(recipe, stage)
    except RecipeError as error:
        return {"kind": str(error)}
    # The image of pods that serve or train has all packages.
    image = {"image": "serve"} if role.kind == "light" and stage.packages(recipe) else {}
    return {**asdict(role), **image}


def differences(recipe: Recipe, stages: Iterable[Declaration], compiled_from: str) -> list[str]:
    """Return a sentence for each field in which the compiled pods and this recipe differ."""
    compiled, wanted = json.loads(compiled_from), fields(recipe, stages)
    return [
        f"{path}: the pipeline was compiled with {_text(compiled, path)}, this run's recipe has "
        f"{_text(wanted, path)}"
        for path in sorted(compiled.keys() | wanted.keys())
        if compiled.get(path) != wanted.get(path)
    ]


def _text(fields: dict[str, Any], path: str) -> str:
    return json.dumps(fields[path], ensure_ascii=False) if path in fields else "none"


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if not (isinstance(value, dict) and value):
        yield path, value
        return
    for key, child in value.items():
        yield from _flat(child, f"{path}.{key}" if path else key)
