"""What the schedule needs of the engines. `moaa.engines` has the implementations."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol


class Fleet(Protocol):
    """The models of a stage that have to be started. Those with an `endpoint` are always up and
    never count."""

    capacity: int | None
    """How many of these models can be up at the same time; None: all of them."""

    async def up(self, models: Collection[str]) -> None:
        """Start those that are not up yet, side by side; return when each has answered a request.

        Raises EngineError.
        """

    async def down(self, models: Collection[str]) -> None:
        """Stop these: they get no more calls, and are gone within 10 s."""
