"""The base of documents that moaa reads and writes: recipes, manifests, training jobs."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import BaseModel, ConfigDict


class Problems(ValueError):
    """Fields that do not fit together: for each its address below the part, and a sentence.

    All are shown at once, each with its line.
    """

    def __init__(self, found: Sequence[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = found


class Part(BaseModel):
    """A part of a document: immutable, and without unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
