"""Work at the same time, of which all must succeed, and blocking work that can be left."""

from __future__ import annotations

import asyncio
import threading

import pytest

from moaa.engines.concurrency import detached, together


async def test_what_blocks_gives_its_result_or_its_error() -> None:
    assert await together(detached(lambda n=n: n * n) for n in range(3)) == [0, 1, 4]
    with pytest.raises(ZeroDivisionError):
        await detached(lambda: 1 // 0)


def test_nobody_waits_for_what_is_left() -> None:
    """A download of hundreds of GB, when the stage is told to end."""
    go, begun = threading.Event(), threading.Event()

    async def leave() -> None:
        waiting = asyncio.create_task(detached(lambda: begun.set() or go.wait(30)))
        await asyncio.to_thread(begun.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(leave())
    assert not go.is_set()
    go.set()  # its result comes when the loop is closed, and is nobody's
