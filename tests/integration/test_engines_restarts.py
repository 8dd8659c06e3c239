"""Engines that hang or die are started again, but not without end."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import time
from pathlib import Path

import pytest

from moaa.engines import server
from moaa.errors import EngineError
from moaa.recipe.schema import Calls, Model
from tests.support.leasing import Bench
from tests.support.machine_fleet import serving
from tests.support.processes import engine_groups, group
from tests.support.waiting import async_until

pytestmark = pytest.mark.timeout(60)


async def ask_for_ever(bench: Bench) -> None:
    while True:
        await bench.ask("a")
        await asyncio.sleep(0.05)


def pretending(weights: str, what: str) -> Model:
    return Model(source=weights, engine_args=("--pretend", what))


async def test_an_engine_that_hangs_is_started_again_and_its_calls_are_answered(
    weights: str, tmp_path: Path
) -> None:
    model = pretending(weights, f"hang-once={tmp_path / 'hung'}")
    async with serving({"a": model}, calls=Calls(timeout_s=1, retries=0)) as bench:
        await bench.fleet.up(["a"])
        (hung,) = engine_groups("a")
        assert all(await asyncio.gather(*(bench.ask("a", f"question {n}") for n in range(8))))
        assert group(hung) == []
        assert bench.ledger.events["engines that answered nothing any more"] == 1
        assert bench.ledger.events["engine restarts"] == 1


async def test_an_engine_whose_processes_stand_still_is_replaced(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a driver blocks them: its port still takes connections, SIGTERM does nothing."""
    monkeypatch.setattr(server, "STOP_GRACE_S", 0.5)
    calls = Calls(timeout_s=1, retries=0)
    async with serving({"a": Model(source=weights)}, calls=calls) as bench:
        await bench.fleet.up(["a"])
        (stopped,) = engine_groups("a")
        os.killpg(stopped, signal.SIGSTOP)
        assert all(await asyncio.gather(*(bench.ask("a", f"question {n}") for n in range(8))))
        assert group(stopped) == []
        assert bench.ledger.events["engines that answered nothing any more"] == 1


async def test_an_engine_that_hangs_again_and_again_fails_its_model(weights: str) -> None:
    model = pretending(weights, "hang")
    async with serving({"a": model}, calls=Calls(timeout_s=0.5), max_restarts=1) as bench:
        await bench.fleet.up(["a"])
        with pytest.raises(EngineError, match=r"was stopped: .* it hangs.*\(exit status"):
            await asyncio.gather(*(bench.ask("a", f"question {n}") for n in range(8)))


async def test_dead_at_start_is_an_error_at_once_with_its_cause(weights: str) -> None:
    async with serving(
        {"a": pretending(weights, "die-at-start"), "b": Model(source=weights)}
    ) as bench:
        start = time.monotonic()
        with pytest.raises(EngineError) as caught:
            await bench.fleet.up(["a", "b"])
        assert time.monotonic() - start < 60, "not after the whole budget"
        text = str(caught.value)
        assert "the engine of model 'a' ended while starting (exit status 1)" in text
        assert (
            "  RuntimeError: the weights are made of cheese\n" in text
        )  # far above the last lines, and without its colour
        assert text.rstrip().endswith("  frame 39")
        log = re.search(r"Its log is (\S+);", text)[1]  # type: ignore[index]
        assert engine_groups("a") == engine_groups("b") == []
    assert await asyncio.to_thread(Path(log).is_file)  # so that the rest of it can be read


async def test_not_ready_in_time(weights: str) -> None:
    async with serving({"a": pretending(weights, "never-ready")}, start_timeout_s=1) as bench:
        start = time.monotonic()
        with pytest.raises(
            EngineError,
            match=r"was not ready in time \(runtime.engines.start_timeout_s\)[\s\S]*the end of "
            r"it:\n",
        ):
            await bench.fleet.up(["a"])
        assert time.monotonic() - start < 4


async def test_calls_wait_while_a_killed_engine_is_started_again(weights: str) -> None:
    async with serving({"a": Model(source=weights)}) as bench:
        await bench.fleet.up(["a"])
        (pgid,) = engine_groups("a")
        os.kill(pgid, signal.SIGKILL)
        answers = await asyncio.gather(*(bench.ask("a", f"question {n}") for n in range(20)))
        assert len(set(answers)) == 20
        assert bench.ledger.events["engine restarts"] == 1
        assert group(pgid) == []  # what the dead server had started is gone too


async def test_restarts_are_bounded_and_then_calls_fail(weights: str) -> None:
    async with serving({"a": pretending(weights, "die-after=0.2")}, max_restarts=2) as bench:
        await bench.fleet.up(["a"])
        with pytest.raises(
            EngineError,
            match=r"model 'a' died[\s\S]*restarted 2 times \(runtime.engines.max_restarts\)",
        ):
            await ask_for_ever(bench)
        assert bench.ledger.events["engine restarts"] == 2


async def test_a_restart_that_fails_counts(weights: str, tmp_path: Path) -> None:
    async with serving(
        {"a": pretending(weights, f"die-later={tmp_path / 'mark'}")}, max_restarts=2
    ) as bench:
        await bench.fleet.up(["a"])
        os.kill(engine_groups("a")[0], signal.SIGKILL)
        with pytest.raises(EngineError, match=r"made of cheese[\s\S]*restarted 2 times"):
            await bench.ask("a")
        assert bench.ledger.events["engine restarts"] == 2


async def test_a_stubborn_engine_is_killed_after_its_grace(
    weights: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert server.STOP_GRACE_S <= 8  # gone within 10 s
    monkeypatch.setattr(server, "STOP_GRACE_S", 1.0)
    async with serving({"a": pretending(weights, "stubborn")}) as bench:
        await bench.fleet.up(["a"])
        (pgid,) = engine_groups("a")
        start = time.monotonic()
        await bench.fleet.down(["a"])
        assert 1 <= time.monotonic() - start < 4
        assert group(pgid) == []


async def test_cancelled_while_starting_leaves_nothing(weights: str) -> None:
    async with serving({"a": pretending(weights, "never-ready")}) as bench:
        up = asyncio.create_task(bench.fleet.up(["a"]))
        (pgid,) = await async_until(lambda: engine_groups("a"))
        up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await up
        assert group(pgid) == engine_groups("a") == []
