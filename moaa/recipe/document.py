"""The base of all recipe fields."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Problems(ValueError):
    """What is wrong between fields: (address below the part, sentence) for each, so that all are
    shown, each at its line."""

    def __init__(self, found: list[tuple[tuple[str | int, ...], str]]) -> None:
        super().__init__("; ".join(text for _, text in found))
        self.found = found


class Part(BaseModel):
    """Base of all recipe fields: immutable, and unknown keys are refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )
