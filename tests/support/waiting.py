"""Wait for a condition instead of a fixed time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def until(
    look: Callable[[], T],
    what: str | Callable[[], object] = "it",
    timeout_s: float = 30,
    every_s: float = 0.005,
) -> T:
    """Return what `look` gives as soon as that is true. `what` names it if it does not come."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, _late(what, timeout_s)
        time.sleep(every_s)
    return found


async def async_until(
    look: Callable[[], T],
    what: str | Callable[[], object] = "it",
    timeout_s: float = 30,
    every_s: float = 0.002,
) -> T:
    """The same for a test that runs in an event loop."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        assert time.monotonic() < deadline, _late(what, timeout_s)
        await asyncio.sleep(every_s)
    return found


def _late(what: str | Callable[[], object], timeout_s: float) -> str:
    return f"{what if isinstance(what, str) else what()} did not come within {timeout_s:.0f} s"
