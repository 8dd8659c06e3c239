"""Finds the texts that a run's models take for control tokens: a stage neutralises them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic import model_serializer

from moaa.chat.controls import KNOWN
from moaa.errors import EngineError, HubAway, RecipeError, StoreError
from moaa.progress.messages import log
from moaa.recipe.schema import Model, Part, Recipe
from moaa.store import Store
from moaa.weights.control import rendered_controls

NEUTRALISED = "texts with control tokens, neutralised on their way to a model"


def is_cut(answer: Mapping[str, Any]) -> bool:
    """Return whether this answer was cut at max_tokens (an object of a row with a finish
    reason)."""
    return bool(answer["finish_reason"] == "length")


class TextPart(Part):
    """The part of a stage that passes texts to models. Fields with default values are left out, so
    that a new field does not change the fingerprints of runs that do not use it."""

    control_texts: tuple[str, ...] = ()
    """The control texts in the chat templates of the run's own models, besides the well-known
    ones."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dump(self).items()
            if fields[name].is_required() or getattr(self, name) != fields[name].default
        }


def control_texts(recipe: Recipe) -> tuple[str, ...]:
    """Return the control texts that only the models of this recipe have.

    A tokenizer that cannot be read here adds none (a model that only an endpoint has). The
    well-known texts are always neutralised. Raises HubAway if engines of this run also need the
    hub. A run that does not load the models itself continues without it.
    """
    found: set[str] = set()
    for model in recipe.models.values():
        address = recipe.store.model_dump_json()
        try:
            found |= _read(model.source, model.revision, model.engine_args, address)
        except HubAway as error:
            if recipe.runtime.engines.kind == "process" and not model.endpoint:
                raise
            log.warning(f"only well-known control tokens are neutralised: {error}")
            break
    return tuple(sorted(found))


@cache
def _read(
    source: str, revision: str | None, engine_args: tuple[str, ...], address: str
) -> frozenset[str]:
    from moaa.recipe.schema import StoreAddress
    from moaa.weights.tokenizer import chat_template

    model = Model(source=source, revision=revision, engine_args=engine_args)
    store = Store.of(StoreAddress.model_validate_json(address))
    try:
        template = chat_template(model, store)
    except (RecipeError, EngineError, StoreError) as error:
        log.debug(f"{source}: its control texts are not known here: {error}")
        return frozenset()
    # Special or not does not matter: a turn can be forged only with what the template writes.
    written = rendered_controls(
        ((text, False) for text, _ in template.added), template.text, template.render
    )
    return frozenset(text for text in written if not KNOWN.covers(text))
