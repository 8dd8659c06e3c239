"""What the schedule needs from the engines. `moaa.engines` has the implementations."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Fleet(Protocol):
    """The models of a stage that must be started. Models with an `endpoint` are always up and do
    not count."""

    capacity: int | None
    """How many of these models can be up at the same time; None: all of them."""

    async def up(self, models: Collection[str]) -> None:
        """Start the models that are not up, in parallel; return when each has answered a request.

        Raises EngineError.
        """

    async def down(self, models: Collection[str]) -> None:
        """Stop these models: they get no more calls, and are gone within 10 s."""
