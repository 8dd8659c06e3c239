"""Finds the texts that a run's models take for control tokens: a stage neutralises them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from pydantic import model_serializer

from moaa import templates
from moaa.chat.controls import KNOWN
from moaa.errors import EngineError, HubAway, RecipeError, StoreAway, StoreError
from moaa.progress.messages import log
from moaa.recipe.schema import Mixture, Model, Part, Recipe
from moaa.store import Store
from moaa.weights.control import rendered_controls

UNREAD = "package:unread/"
"""Begins the source of a model that is not read: recipes with the same models are compared."""
NEUTRALISED = "texts with control tokens, neutralised on their way to a model"


def is_cut(answer: Mapping[str, Any]) -> bool:
    """Return whether this answer was cut at max_tokens (an object of a row
    with a finish reason)."""
    return bool(answer["finish_reason"] == "length")


class TextPart(Part):
    """The part of a stage that passes texts to models. Fields with default values are left out, so
    that a new field does not change the fingerprints of runs that do not use it."""

    control_texts: tuple[str, ...] = ()
    """The control texts in the chat templates of the run's own models,
    besides the well-known ones."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dump(self).items()
            if fields[name].is_required() or getattr(self, name) != fields[name].default
        }


def with_instruction(mixture: Mixture) -> Mixture:
    """Return the mixture with its instruction as text. If moaa's own text changes, what the mixture
    wrote before is not found again."""
    instruction = mixture.instruction or templates.text("aggregate")
    return mixture.model_copy(update={"instruction": instruction})


def control_texts(recipe: Recipe) -> tuple[str, ...]:
    """Return the control texts that only the models of this recipe have.

    The texts are part of fingerprints, so an outage of the hub or of S3 must not change them: for
    a model that this run's own engines load, HubAway or StoreAway is raised. A model that an
    endpoint serves, or whose tokenizer cannot be read here, adds none; a warning names it. The
    well-known texts are always neutralised.
    """
    found: set[str] = set()
    for model in recipe.models.values():
        if model.source.startswith(UNREAD):
            continue
        address = recipe.store.model_dump_json()
        try:
            found |= _read(model.source, model.revision, model.engine_args, address)
        except (HubAway, StoreAway) as error:
            if not model.endpoint and recipe.runtime.engines.kind != "endpoint":
                raise
            _warn(model.source, error)
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
    except StoreAway:
        raise
    except (RecipeError, EngineError, StoreError) as error:
        _warn(source, error)
        return frozenset()
    # Special or not does not matter: a turn can be forged only with what the template writes.
    written = rendered_controls(
        ((text, False) for text, _ in template.added), template.text, template.render
    )
    return frozenset(text for text in written if not KNOWN.covers(text))


def _warn(source: str, error: Exception) -> None:
    log.warning(
        f"{source}: of its control tokens only well-known ones are neutralised, since its chat "
        f"template cannot be read here: {str(error).splitlines()[0]}"
    )
