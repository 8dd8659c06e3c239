"""The fleet, with a server that starts in a moment (tests/support/fake_vllm) in vLLM's place."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from moaa import engines
from moaa.chat.client import Client
from moaa.engines import cores, devices, server
from moaa.errors import EngineError
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Calls, Engines, Model, Runtime
from tests.support.engine_server import EngineServer
from tests.support.leasing import Bench
from tests.support.paths import ROOT
from tests.support.processes import engine_groups, group
from tests.support.sessions import session_of
from tests.support.waiting import async_until

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A folder that looks like a model; vLLM is the fake one, and there are two cores that nobody
    else knows of."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests/support/fake_vllm'}{os.pathsep}{ROOT}")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cores, "available", lambda: [0, 1])
    monkeypatch.setattr(devices, "hardware", lambda: devices.Hardware("cpu", ("0", "1")))
    monkeypatch.setattr("moaa.engines.process.hardware", devices.hardware)
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "config.json").touch()
    return str(folder)


@asynccontextmanager
async def serving(
    models: dict[str, Model], calls: Calls = Calls(retries=3), **options: Any
) -> AsyncIterator[Bench]:
    runtime = Runtime(engines=Engines.model_validate(options), calls=calls)
    ledger, progress = Ledger(), Progress.silent()
    session = session_of(models, runtime, ledger=ledger, progress=progress)
    async with (
        Client(runtime.calls, ledger) as client,
        engines.start(session, client) as fleet,
    ):
        yield Bench(client, fleet, ledger, progress)


async def ask_for_ever(bench: Bench) -> None:
    while True:
        await bench.ask("a")
        await asyncio.sleep(0.05)


def pretending(weights: str, what: str) -> Model:
    return Model(source=weights, engine_args=("--pretend", what))


async def test_up_answers_down(weights: str) -> None:
    async with serving({"a": Model(source=weights)}) as bench:
        assert bench.fleet.capacity is None
        await bench.fleet.up(["a"])
        assert await bench.ask("a")
        assert bench.ledger.seconds["engines"] > 0
        assert bench.ledger.model("a").calls == 1  # trying whether it is up is not counted
        await bench.fleet.up(["a"])
        (pgid,) = engine_groups("a")
        assert len(group(pgid)) >= 2
        start = time.monotonic()
        await bench.fleet.down(["a"])
        assert time.monotonic() - start < 3
        assert group(pgid) == []
        assert bench.client.pool("a").endpoints == []
        await bench.fleet.up(["a"])
        assert await bench.ask("a")
        (pgid,) = engine_groups("a")
        logs = bench.fleet._logs
        assert cores.holders() == [f"engines of a (process {os.getpid()})"]
    assert group(pgid) == []
    assert not logs.exists()
    assert cores.holders() == []


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


async def test_engines_side_by_side_share_no_core(weights: str) -> None:
    async with serving({"a": Model(source=weights), "b": Model(source=weights)}) as bench:
        await bench.fleet.up(["a", "b"])
        assert await asyncio.gather(bench.ask("a"), bench.ask("b"))
        bound = [
            re.findall("^cores: (.*) GPUs: None$", log.read_text(), re.MULTILINE)
            for log in sorted(bench.fleet._logs.iterdir())
        ]
        assert bound == [["0"], ["1"]]


async def test_one_engine_gets_all_cores(weights: str) -> None:
    async with serving({"a": Model(source=weights, tensor_parallel=4)}) as bench:
        await bench.fleet.up(["a"])
        (log,) = bench.fleet._logs.iterdir()
        assert "\ncores: 0,1 GPUs: None\n" in log.read_text()


async def test_more_models_than_cores_take_turns(weights: str) -> None:
    async with serving({name: Model(source=weights) for name in "abc"}) as bench:
        assert bench.fleet.capacity == 2
        await bench.fleet.up(["a", "b"])
        with pytest.raises(
            EngineError, match="'c' cannot be started beside a, b: only 2 fit at once"
        ):
            await bench.fleet.up(["c"])
        await bench.fleet.down(["a"])
        await bench.fleet.up(["c"])
        assert await asyncio.gather(bench.ask("b"), bench.ask("c"))


async def test_engines_wait_for_cores_and_say_so(weights: str) -> None:
    async with serving({"a": Model(source=weights)}) as bench:
        training = cores.attempt(1, "training dpo")
        assert training is not None
        up = asyncio.create_task(bench.fleet.up(["a"]))
        await async_until(lambda: bench.progress.view().note)
        assert bench.progress.view().note.startswith(
            "engines of a waits for 2 cores, held by training dpo"
        )
        assert not up.done()
        training.release()
        await up
        assert bench.progress.view().note == ""
        assert await bench.ask("a")


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
            match=r"model 'a' died[\s\S]*started again 2 times \(runtime.engines.max_restarts\)",
        ):
            await ask_for_ever(bench)
        assert bench.ledger.events["engine restarts"] == 2


async def test_a_restart_that_fails_counts(weights: str, tmp_path: Path) -> None:
    async with serving(
        {"a": pretending(weights, f"die-later={tmp_path / 'mark'}")}, max_restarts=2
    ) as bench:
        await bench.fleet.up(["a"])
        os.kill(engine_groups("a")[0], signal.SIGKILL)
        with pytest.raises(EngineError, match=r"made of cheese[\s\S]*started again 2 times"):
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


@pytest.fixture
def four_gpus(weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """As `weights`, on a machine with four GPUs and the `vllm` script beside Python."""
    monkeypatch.setattr(
        "moaa.engines.process.hardware", lambda: devices.Hardware("cuda", ("0", "1", "2", "3"))
    )
    script = tmp_path / "bin" / "vllm"
    script.parent.mkdir()
    script.write_text(
        f'#!/bin/sh\nshift 2; exec {sys.executable} -m vllm.entrypoints.openai.api_server "$@"\n'
    )
    script.chmod(0o755)
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    return weights


async def test_replicas_on_gpus_and_the_loss_of_one(four_gpus: str) -> None:
    async with serving({"a": Model(source=four_gpus, tensor_parallel=2)}, max_restarts=0) as bench:
        await bench.fleet.up(["a"])
        logs = sorted(bench.fleet._logs.iterdir())
        assert [re.findall("GPUs: (.*)$", log.read_text(), re.MULTILINE) for log in logs] == [
            ["0,1"],
            ["2,3"],
        ]
        assert len(bench.client.pool("a").endpoints) == 2
        assert cores.holders() == []
        first, second = engine_groups("a")
        os.kill(first, signal.SIGKILL)
        answers = await asyncio.gather(*(bench.ask("a", f"question {n}") for n in range(20)))
        assert len(set(answers)) == 20
        await async_until(lambda: bench.ledger.events["engines given up"])
        assert bench.ledger.events == {"engines given up": 1}
        os.kill(second, signal.SIGKILL)
        with pytest.raises(EngineError, match="model 'a' died"):
            await bench.ask("a")


# Servers that are up already.


def at(url: str, **endpoint: Any) -> Model:
    return Model.model_validate({"source": "org/name", "endpoint": {"url": url, **endpoint}})


async def test_endpoints_are_checked_and_need_no_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "s3cret")
    with EngineServer("there", key="s3cret") as there:
        async with serving(
            {"a": at(there.url + "/", model="there", key_env="SOME_KEY")}, kind="endpoint"
        ) as bench:
            assert bench.fleet.capacity is None
            await bench.fleet.up(["a"])
            assert await bench.ask("a")
            await bench.fleet.down(["a"])
            assert await bench.ask("a")


async def test_an_endpoint_stands_beside_a_process(weights: str) -> None:
    with EngineServer("b") as there:
        async with serving({"a": Model(source=weights), "b": at(there.url)}) as bench:
            await bench.fleet.up(["a", "b"])
            assert await asyncio.gather(bench.ask("a"), bench.ask("b"))


async def test_a_key_that_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOME_KEY", raising=False)
    with pytest.raises(
        EngineError,
        match="model 'a' takes its API key from the environment variable SOME_KEY, which is not "
        "set",
    ):
        async with serving({"a": at("http://127.0.0.1:1/v1", key_env="SOME_KEY")}):
            raise AssertionError


async def test_a_wrong_key_or_name_is_an_error_at_once() -> None:
    with EngineServer("there", key="s3cret") as there:
        for model in (at(there.url, model="there"), at(there.url)):
            with pytest.raises(EngineError):
                async with serving({"a": model}):
                    raise AssertionError


async def test_a_kind_that_cannot_serve() -> None:
    models = {"a": Model(source="org/name"), "b": Model(source="org/name")}
    with pytest.raises(
        EngineError,
        match=r"is 'endpoint', but models 'a', 'b' have no `endpoint`. Give "
        r"models.NAME.endpoint.url",
    ):
        async with serving(models, kind="endpoint"):
            raise AssertionError
