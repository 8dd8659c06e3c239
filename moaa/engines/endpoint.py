"""Models that other servers already serve, with the OpenAI protocol."""

from __future__ import annotations

import os
from collections.abc import Collection

from moaa.chat.pool import Endpoint
from moaa.errors import EngineError
from moaa.recipe.places import places
from moaa.recipe.schema import Model, Runtime


class NothingToStart:
    """The fleet of a stage whose models are all served already."""

    capacity: int | None = None

    async def up(self, models: Collection[str]) -> None:
        """Do nothing: they are up."""

    async def down(self, models: Collection[str]) -> None:
        """Do nothing: moaa did not start them."""


def endpoint(name: str, model: Model, runtime: Runtime) -> Endpoint:
    """Return the address of a model with `endpoint`, and its key. Raises EngineError if the key's
    variable is not set."""
    assert model.endpoint is not None
    served, key = model.endpoint, None
    if served.key_env:
        key = os.environ.get(served.key_env)
        if not key:
            raise EngineError(
                f"model '{name}' takes its API key from the environment variable "
                f"{served.key_env}, which is not set. Set {served.key_env}, or remove "
                f"models.{name}.endpoint.key_env if the server needs no key."
            )
    return Endpoint(
        url=served.url.rstrip("/"),
        model=served.model or name,
        key=key,
        task=model.task,
        places=places(runtime, "endpoint"),
    )
