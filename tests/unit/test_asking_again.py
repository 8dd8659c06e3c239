"""Attempts that broke, and the next one: nothing that was answered is asked again, and no engine
starts for nothing."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from moaa.errors import EngineError, StoreError
from tests.support.asking import SHORT, Bench, mixture, one_call, user
from tests.support.engine_server import slow, status
from tests.support.waiting import async_until, until


def test_a_second_attempt_starts_no_engine(bench: Bench):
    first = bench.run(range(10), mixture)
    asked = bench.server.count
    assert bench.run(range(10), mixture) == first
    assert bench.server.count == asked
    assert bench.fleet.entered == 0
    assert bench.progress.view().done == 10


def test_an_attempt_goes_on_where_the_last_one_broke(bench: Bench):
    uninterrupted = Bench(bench.server).run(range(20), mixture)
    asked, answered = bench.server.count, 0

    async def breaks(item, ask):
        nonlocal answered

        async def counting(*args, **kwargs):
            nonlocal answered
            reply = await ask(*args, **kwargs)
            answered += 1
            if answered == 57:
                raise ZeroDivisionError
            return reply

        return await mixture(item, counting)

    with pytest.raises(ZeroDivisionError):
        bench.run(range(20), breaks, in_flight=1)
    sent = sum(use.calls for use in bench.ledger.models.values())
    assert 57 <= sent < 120
    assert bench.run(range(20), mixture) == uninterrupted
    known = sum(use.journal for use in bench.ledger.models.values())
    assert known > 0
    assert sent + sum(use.calls for use in bench.ledger.models.values()) == 120, (
        "an answered call was asked again"
    )
    assert bench.server.count - asked >= 120


def test_conversations_that_the_journal_can_finish_start_no_engine(bench: Bench):
    async def almost(item, ask):
        await ask("a", user(str(item)), SHORT)
        raise KeyError("a bug of the method, found and mended")

    with pytest.raises(KeyError):
        bench.run([1], almost)
    bench.run([1], one_call)
    assert bench.fleet.entered == 0
    assert bench.ledger.models["a"].journal == 1


def test_what_a_row_shares_it_still_has_after_a_crash(bench: Bench):
    bench.server.delay_s = 0.05

    async def same(item, ask):
        await ask("a", user("the same for both"), SHORT)
        if item == 1:
            await async_until(lambda: bench.progress.view().done == 1, "the other row")
            raise KeyError
        return {}

    with pytest.raises(KeyError):
        bench.run(range(2), same)

    async def mended(item, ask):
        return {"said": (await ask("a", user("the same for both"), SHORT)).text}

    bench.run(range(2), mended)
    assert bench.server.count == 1


def test_a_model_that_is_not_served_ends_all_and_keeps_what_was_answered(bench: Bench):
    bench.server.fail(slow(0.3), model="c")
    bench.server.fail(status(404, "no such model"), model="c")
    with pytest.raises(EngineError, match="no such model"):
        bench.run(range(50), mixture, in_flight=1)
    assert bench.fleet.journaled_at_exit > 0, (
        "the engines were stopped before the journal was flushed"
    )
    bench.run(range(50), mixture)
    in_flight_at_the_end = 1
    assert bench.server.counts["b"] <= 100 + in_flight_at_the_end, "b answers each of 50 rows twice"
    assert bench.ledger.models["b"].journal > 0


def test_engines_do_not_wait_again_for_a_store_that_has_failed(bench: Bench):
    """They stayed up for 40 minutes more: the journal was tried again before they were stopped."""

    async def fails(item, ask):
        await ask("a", user(str(item)), SHORT)
        bench.store.fail_puts = 1
        bench.journal.flush()

    with pytest.raises(StoreError):
        bench.run([1], fails)
    assert bench.fleet.journaled_at_exit == 0
    bench.run([1], one_call)
    assert bench.ledger.models["a"].journal == 1, "the answer was kept when the journal was closed"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_soon_and_keeps_what_was_answered(bench: Bench, signum: signal.Signals):
    class Told(BaseException):
        """What the stage makes of SIGTERM."""

    def tell(*_) -> None:
        raise Told

    async def hangs(item, ask):
        await ask("a", user(str(item)), SHORT)
        return {"said": (await ask("b", user("hang"), SHORT)).text}

    bench.server.fail(slow(3600), model="b", times=100)
    before = signal.signal(signal.SIGTERM, tell)
    interrupt = signal.signal(
        signal.SIGINT, signal.default_int_handler
    )  # a shell's background job is started without one
    told_at = []

    def send() -> None:
        try:
            until(lambda: bench.ledger.model("a").calls == 10 and bench.server.counts["b"])
        finally:
            told_at.append(time.monotonic())
            os.kill(os.getpid(), signum)

    threading.Thread(target=send, daemon=True).start()
    try:
        with pytest.raises((Told, KeyboardInterrupt)):
            bench.run(range(10), hangs)
        assert signal.getsignal(signal.SIGTERM) is tell
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, interrupt)
    assert time.monotonic() - told_at[0] < 15
    assert bench.fleet.left == 1
    assert bench.fleet.journaled_at_exit > 0
    bench.server.heal()
    bench.run(range(10), hangs)
    assert bench.server.counts["a"] == 10
