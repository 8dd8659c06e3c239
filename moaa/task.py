"""What each task of a run gets: the recipe, the overrides, and the run's id."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moaa.errors import ArtifactError
from moaa.lifeline import RUNNER_ENV
from moaa.recipe.files import document_of
from moaa.recipe.load import Loaded, load_text
from moaa.recipe.secrets import DESTINATIONS_ENV, refuse_other_destinations
from moaa.store import Store


@dataclass(frozen=True)
class Task:
    """The parameters that all tasks of a run share."""

    recipe: str
    """YAML or JSON text, or its address `s3://…/<sha256>.yaml`; in a local run the absolute path of
    its file."""
    run_id: str
    overrides: Mapping[str, Any] = field(default_factory=dict)
    """Values that replace those of the recipe, by their paths: `{"dpo.beta": 0.2}`."""

    def load(self) -> Loaded:
        """Return the recipe with the overrides applied.

        A task of a compiled pipeline may send no key to another place than the compiled recipe
        does. Errors name the address or the path. Raises ArtifactError if the text at the address
        does not have the digest in its name.
        """
        text, name = self._text()
        loaded = load_text(text, overrides=self.overrides, name=name)
        if compiled := os.environ.get(DESTINATIONS_ENV):
            refuse_other_destinations(loaded.recipe, compiled)
        return loaded

    def _text(self) -> tuple[str, str]:
        if self.recipe.startswith("s3://"):
            return _stored(self.recipe), self.recipe
        # Only in a local run: in a pod this would read the pod's files, not those of the user.
        if self.recipe.startswith("/") and RUNNER_ENV in os.environ:
            return document_of(Path(self.recipe), "the recipe"), self.recipe
        return self.recipe, "recipe"


def keep(text: str, store: Store) -> str:
    """Put a recipe's text on S3 under its digest; return the address, for a `Task`."""
    data = text.encode()
    address = f"{store.root}/recipes/{hashlib.sha256(data).hexdigest()}.yaml"
    store.put_new(address, data)
    return address


def _stored(address: str) -> str:
    folder, _, name = address.rpartition("/")
    data = Store(folder).get(address)
    if hashlib.sha256(data).hexdigest() != name.removesuffix(".yaml"):
        raise ArtifactError(
            f"the recipe at {address} does not have the digest in its name: it was changed. "
            "Submit the run again."
        )
    return data.decode()
