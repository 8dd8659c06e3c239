"""The recipe's fields about promotion: how a published version comes into production."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from moaa.recipe.document import Part


class Promote(Part):
    """The published version is put into production. Needs `publish`. Without `slots` only the
    production pointer moves: whoever reads it serves the version."""

    slots: str | None = None
    """The name under `promoted` in the values of moaa-serving: its idle slot serves the version,
    and gets a growing share of the conversations."""
    namespace: str | None = None
    """Where moaa-serving is. Default: `runtime.cluster.namespace`, else that of the pods."""
    steps: tuple[int, ...] = (5, 25, 100)
    """Shares of the version in per cent. The first is small, so that a bad version harms few."""
    hold_s: float = Field(300.0, ge=0)
    """How long each share is held: the gateway's guard needs some requests to judge by."""
    deadline_s: float = Field(7200.0, gt=0)
    """After this time everything is put back, so that no promotion stays half done. It must have
    room for the start of the model and for all steps."""
    canary: bool = True
    """Whether the slot is asked what the version is known to answer before it gets a share: so the
    model that answers is the model that was judged."""

    @model_validator(mode="after")
    def _steps_grow(self) -> Self:
        if problem := wrong_steps(self.steps):
            raise ValueError(f"steps: {problem}")
        if len(self.steps) * self.hold_s >= self.deadline_s:
            raise ValueError(
                f"deadline_s is {self.deadline_s:g}, and {len(self.steps)} steps of "
                f"{self.hold_s:g} s take as long. Give it more."
            )
        return self


def wrong_steps(steps: tuple[int, ...]) -> str:
    """Return what is wrong with these shares; empty if nothing is."""
    if not steps or steps[-1] != 100 or sorted(set(steps)) != list(steps) or steps[0] < 1:
        return "write growing shares in per cent that end with 100: 5, 25, 100"
    return ""
