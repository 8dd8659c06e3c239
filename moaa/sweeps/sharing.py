"""Which stages of two variants are the same and computed once, by the first that comes to them.

A stage's fingerprint is known only with its inputs. Here each stage gets a key before the run, made
from its part of the recipe and from the keys of its inputs. Equal keys give equal fingerprints.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from moaa.declaration import Declaration, needed_by
from moaa.errors import MoaaError
from moaa.recipe.load import digest_of
from moaa.recipe.schema import Recipe
from moaa.stages.texts import UNREAD


def keys(recipe: Recipe, stages: Iterable[Declaration]) -> dict[str, str]:
    """Return a key for each stage with a result. A stage whose part cannot be known here gets a key
    of its own, as if it were not shared."""
    unread = _unread(recipe)
    found: dict[str, str] = {}
    for declared in stages:
        if not declared.outputs:
            continue
        identity: list[Any] = [
            declared.name,
            *(found[name] for name in sorted(needed_by(declared))),
        ]
        try:
            made = _stage(declared)
            identity += [made.schema, made.part_of(unread).model_dump(mode="json")]
        except MoaaError:
            identity.append(digest_of(recipe))
        text = json.dumps(identity, sort_keys=True)
        found[declared.name] = hashlib.sha256(text.encode()).hexdigest()[:24]
    return found


def may_start(
    variant: Collection[str], running: Iterable[Collection[str]], done: Collection[str]
) -> bool:
    """Return whether a variant with these keys may start while the others run: nothing unfinished
    would be computed twice."""
    return all(set(variant) & set(other) <= set(done) for other in running)


def shared(own: Mapping[str, str], before: Collection[str]) -> list[str]:
    """Return the stages of a variant that earlier variants compute."""
    return [stage for stage, key in own.items() if key in before]


def _stage(declared: Declaration) -> Any:
    module, _, name = declared.entry.partition(":")
    return getattr(importlib.import_module(module), name)


def _unread(recipe: Recipe) -> Recipe:
    """Return the recipe with models that are not read: their tokenizers are the same in all
    variants."""
    models = {
        name: model.model_copy(update={"source": f"{UNREAD}{model.source}"})
        for name, model in recipe.models.items()
    }
    return recipe.model_copy(update={"models": models})
