"""The recipe's fields about promotion: how a published version is put into production."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from moaa.recipe.document import Part, Problems


class Promote(Part):
    """Puts the published version into production. Needs `publish`. Without `slots` only the
    production pointer moves, and the version is served by whatever reads it."""

    slots: str | None = None
    """The name under `promoted` in the values of moaa-serving. Its idle slot serves the version,
    and gets a growing share of the conversations."""
    namespace: str | None = None
    """The namespace of moaa-serving. Default: `runtime.cluster.namespace`,
    else that of the pods."""
    steps: tuple[int, ...] = (5, 25, 100)
    """Shares of the version in per cent. The first is small,
    so that a bad version reaches few users."""
    hold_s: float = Field(300.0, ge=0)
    """How long each share is held: the gateway's guard needs some requests to judge by."""
    hold_requests: int | None = Field(None, ge=1)
    """End a share before `hold_s`, once the version has answered this many requests at it. Default:
    always hold for `hold_s`, because some faults need time to show, for example memory that fills
    up. The guard finds a version that fails half of the time within 50 of its requests, and one
    that fails in one of five within 200. So set 200, and a `hold_s` in which even little traffic
    reaches that."""
    deadline_s: float = Field(7200.0, gt=0)
    """After this time everything is put back, so that no promotion stays half done. It must be long
    enough for the start of the model and for all steps."""
    canary: bool = True
    """Whether the slot is asked the version's canary prompts before it gets a share, to check that
    it serves the model that was judged."""

    @model_serializer(mode="wrap")
    def _without_unused(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out a newer field unless it is set, so that fingerprints stay as they were."""
        found: dict[str, Any] = dump(self)
        if found.get("hold_requests") is None:
            found.pop("hold_requests", None)
        return found

    @model_validator(mode="after")
    def _steps_grow_and_have_time(self) -> Self:
        steps = self.steps
        if not steps or steps[-1] != 100 or sorted(set(steps)) != list(steps) or steps[0] < 1:
            said = "write growing shares in per cent that end with 100: 5, 25, 100."
            raise Problems([(("steps",), said)])
        if len(steps) * self.hold_s >= self.deadline_s:
            said = (
                f"it is {self.deadline_s:g}, and {len(steps)} steps of {self.hold_s:g} s take as "
                "long. Give it more."
            )
            raise Problems([(("deadline_s",), said)])
        return self
