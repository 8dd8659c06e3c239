"""The recipe's fields about publishing: under which name, and what is accepted."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from moaa.recipe.document import Part

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([-A-Za-z0-9._ ]{0,94}[A-Za-z0-9])?$")]


class Publish(Part):
    """A model that the gate promotes becomes a version of this name: an immutable folder
    `<store.root>/models/<name>/<version>` with a model card. Needs `gate`."""

    name: Name | None = None
    """Default: the recipe's name. Licences may ask for a prefix: `Llama`."""
    accept_licence_conflict: str | None = None
    """Publish although a licence forbids it, for this reason. The card repeats it."""
