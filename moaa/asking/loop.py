"""An event loop for a whole command, which SIGTERM and Ctrl-C stop cleanly."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on uvloop and return its result.

    SIGTERM and Ctrl-C cancel `main`, also while the loop starts. After all cleaning up, the signal
    has its usual effect.
    """
    import uvloop

    if threading.current_thread() is not threading.main_thread():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    if before[signal.SIGINT] is signal.default_int_handler:
        del before[signal.SIGINT]  # asyncio's runner does the same for it
    arrived: list[int] = []
    running: asyncio.Task[T] | None = None

    # Never raised from here: in the middle of a loop's own work an exception breaks the loop.
    def terminate(number: int, frame: FrameType | None) -> None:
        if not arrived and running is not None:
            running.get_loop().call_soon_threadsafe(running.cancel)
        arrived.append(number)

    async def interruptible() -> T:
        nonlocal running
        running = asyncio.current_task()
        if arrived:
            assert running is not None
            running.cancel()
        return await main

    try:
        for number in before:
            signal.signal(number, terminate)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(interruptible())
    finally:
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        if arrived:
            signal.raise_signal(arrived[0])
