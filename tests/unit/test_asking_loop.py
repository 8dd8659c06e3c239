"""Signals while an event loop works, and while it starts."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

import pytest

from moaa.asking import loop
from moaa.lifeline import Superseded, Terminated, stoppable, supersede

SIGNALS: tuple[Callable[[], None], ...] = (
    lambda: os.kill(os.getpid(), signal.SIGTERM),
    lambda: os.kill(os.getpid(), signal.SIGINT),
    supersede,
)


class Sockets:
    """The module below `socket`, in which a signal arrives as the loop makes its pair of them."""

    def __init__(self, arrives: Callable[[], None]) -> None:
        self.arrives = arrives
        self.whole = socket._socket  # type: ignore[attr-defined]
        self.pairs = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.whole, name)

    def socketpair(self, *args: Any) -> Any:
        self.pairs += 1
        self.arrives()
        return self.whole.socketpair(*args)


@pytest.mark.parametrize("arrives", SIGNALS, ids=["SIGTERM", "SIGINT", "superseded"])
def test_a_signal_while_the_loop_starts_stops_the_stage(
    arrives: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    sockets = Sockets(arrives)
    monkeypatch.setattr(socket, "_socket", sockets)
    expected = Superseded if arrives is supersede else Terminated
    with stoppable(), pytest.raises(Terminated) as raised:
        loop.run(asyncio.sleep(60))
    assert sockets.pairs
    assert type(raised.value) is expected


@pytest.mark.parametrize("arrives", SIGNALS, ids=["SIGTERM", "SIGINT", "superseded"])
def test_a_signal_cancels_once_and_what_is_open_is_cleaned_up(arrives: Callable[[], None]) -> None:
    cleaned = []

    async def work() -> None:
        asyncio.get_running_loop().call_later(0.01, arrives)
        try:
            await asyncio.sleep(60)
        finally:
            arrives()  # a second one does not break off what the first one began
            await asyncio.sleep(0.01)
            cleaned.append(True)

    with stoppable(), pytest.raises(Terminated):
        loop.run(work())
    assert cleaned == [True]


def test_ctrl_c_of_a_command_outside_of_a_stage_is_a_keyboard_interrupt() -> None:
    async def work() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

    before = signal.getsignal(signal.SIGTERM)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with pytest.raises(KeyboardInterrupt):
        loop.run(work())
    assert signal.getsignal(signal.SIGTERM) == before


def test_the_handlers_are_as_before() -> None:
    with stoppable() as stop:
        assert loop.run(asyncio.sleep(0, "result")) == "result"
        assert signal.getsignal(signal.SIGTERM) is stop
        assert signal.getsignal(signal.SIGINT) is stop
