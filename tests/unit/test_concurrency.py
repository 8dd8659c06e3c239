"""Work at the same time, of which all must succeed, and blocking work that can be left."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from moaa.concurrency import detached, together


async def test_what_blocks_gives_its_result_or_its_error() -> None:
    assert await together(detached(partial(pow, n, 2)) for n in range(3)) == [0, 1, 4]
    with pytest.raises(ZeroDivisionError):
        await detached(lambda: 1 // 0)


async def test_the_first_error_stops_the_others_and_is_raised_as_it_is() -> None:
    stopped: list[str] = []

    async def long(name: str) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            stopped.append(name)

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        await together([long("a"), fails(), long("b")])
    assert sorted(stopped) == ["a", "b"]


def test_nobody_waits_for_what_is_left() -> None:
    """A download of hundreds of GB, when the stage is told to end."""
    go, begun = threading.Event(), threading.Event()

    def block() -> None:
        begun.set()
        go.wait(30)

    async def leave() -> None:
        waiting = asyncio.create_task(detached(block))
        await asyncio.to_thread(begun.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
    assert not go.is_set()
    go.set()  # its result comes when the loop is closed, and is nobody's
