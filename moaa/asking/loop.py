"""An event loop for a whole command, which SIGTERM and Ctrl-C stop cleanly."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run `main` on uvloop and return its result.

    SIGTERM and Ctrl-C cancel `main`. After all cleaning up, the signal has its usual effect.
    """
    import uvloop

    if threading.current_thread() is not threading.main_thread():
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(main)
    before = signal.getsignal(signal.SIGTERM)
    terminated = False

    async def interruptible() -> T:
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await main

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            return runner.run(interruptible())
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)
        if terminated:
            signal.raise_signal(signal.SIGTERM)
