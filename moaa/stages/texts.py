"""Which texts a run's models would take for control tokens: what a stage neutralises."""

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
    """Whether max_tokens cut this answer (a row's object with a finish reason)."""
    return bool(answer["finish_reason"] == "length")


class TextPart(Part):
    """The part of a stage that passes texts to models. A field that has its default is left out of
    it, so that a new one does not change the fingerprints of runs that do not use it."""

    control_texts: tuple[str, ...] = ()
    """What the chat templates of the run's own models write beside the well-known control texts."""

    @model_serializer(mode="wrap")
    def _without_defaults(self, dump: Callable[[Any], dict[str, Any]]) -> dict[str, Any]:
        fields = type(self).model_fields
        return {
            name: value
            for name, value in dump(self).items()
            if fields[name].is_required() or getattr(self, name) != fields[name].default
        }


def control_texts(recipe: Recipe) -> tuple[str, ...]:
    """The control texts that only the models of this recipe have.

    A tokenizer that cannot be read here (a model that only an endpoint has) adds none: the
    well-known ones are neutralised in any case. Raises HubAway if engines of this run need the
    hub too; a run that does not load the models itself goes on without it.
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
    # Special or not does not matter: only what the template writes can forge a turn.
    written = rendered_controls(
        ((text, False) for text, _ in template.added), template.text, template.render
    )
    return frozenset(text for text in written if not KNOWN.covers(text))
