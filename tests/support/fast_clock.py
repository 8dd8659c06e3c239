"""An event loop whose clock jumps to the next timer as soon as nothing else is left to do.

Ten minutes of waiting pass in a moment, and always in the same order. Servers of a test must run in
the same loop: their answers then arrive before the clock moves.
"""

from __future__ import annotations

import asyncio
import selectors
from typing import Any


class FastClockLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.now = 1_000.0
        super().__init__(_Selector(self))

    def time(self) -> float:
        return self.now


class _Selector(selectors.DefaultSelector):
    def __init__(self, loop: FastClockLoop) -> None:
        super().__init__()
        self._clock = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        found = super().select(0 if timeout is not None else None)
        if not found and timeout:
            self._clock.now += timeout
        return found
