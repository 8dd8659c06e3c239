"""Engines of one machine: on cores and GPUs of their own, by turns, beside endpoints."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from moaa.engines import cores, devices
from moaa.errors import EngineError
from moaa.recipe.schema import Model
from tests.support.engine_server import EngineServer
from tests.support.machine_fleet import serving
from tests.support.processes import engine_groups, group
from tests.support.waiting import async_until

pytestmark = pytest.mark.timeout(60)


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
