"""The real engine with the real small model: what it answers, and what becomes of it when it is
killed."""

from __future__ import annotations

import asyncio
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from moaa import engines
from moaa.chat.client import Client
from moaa.chat.message import Call, Reply
from moaa.chat.pool import Endpoint
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls, Model, Runtime, Sampling
from tests.support.processes import child_of, engine_groups, group
from tests.support.real_engine import SMOL, RealEngine
from tests.support.sessions import session_of

pytestmark = pytest.mark.real


@pytest.fixture
async def client(engine: RealEngine) -> AsyncIterator[Client]:
    async with Client(Calls(), Ledger()) as client:
        client.pool("smol").add(Endpoint(engine.url, engine.model))
        yield client


def call(
    text: str,
    choices: tuple[str, ...] | None = None,
    logprobs: bool = False,
    model: str = "smol",
    **sampling: object,
) -> Call:
    chosen = Sampling.model_validate({"max_tokens": 16, **sampling})
    return Call(model, ({"role": "user", "content": text},), chosen, choices, logprobs)


async def test_answers(client: Client) -> None:
    reply = await client.send(
        call("What is the capital of France? Answer in one sentence.", temperature=0)
    )
    assert "Paris" in reply.text
    assert reply.choices[0].finish_reason == "stop"
    assert 5 < reply.completion_tokens <= 16


async def test_five_samples_of_one_prompt(client: Client, engine: RealEngine) -> None:
    before = engine.requests()
    reply = await client.send(call("Tell me a story.", n=5, temperature=1.0, seed=1))
    assert len(reply.choices) == 5
    assert len({choice.text for choice in reply.choices}) == 5
    assert reply.completion_tokens == 5 * 16
    assert reply.prompt_tokens < 50  # counted once
    assert engine.requests() == before + 1


async def test_choices_with_logprobs_sum_to_one(client: Client) -> None:
    reply = await client.send(
        call("Which letter comes first in the alphabet, A or B?", ("A", "B"), True, temperature=0)
    )
    assert reply.text in ("A", "B")
    assert reply.choices[0].tokens is not None
    first = reply.choices[0].tokens[0]
    assert math.exp(first["A"]) + math.exp(first["B"]) == pytest.approx(1, abs=1e-3)


async def test_seeded_prompts_at_once_do_not_kill_it(client: Client) -> None:
    """32 at once split their prompts over steps where chunked prefill is on, and the CPU engine
    dies of it."""
    long = "Here is a text about the sea. " * 40
    replies = await asyncio.gather(
        *(client.send(call(f"{n}. {long}", seed=n, temperature=1.0)) for n in range(32))
    )
    assert len(replies) == 32
    again = await client.send(call("Name a colour.", seed=7, temperature=1.0))
    assert again.text == (await client.send(call("Name a colour.", seed=7, temperature=1.0))).text


@pytest.mark.timeout(1200)
async def test_killed_in_the_middle_of_20_calls_all_are_answered() -> None:
    """SIGKILL to the process that computes. Its calls wait for the new engine; then all is stopped,
    and nothing is left. The engine of the other tests, `smol`, lives beside it.
    """
    name = "killed"
    ledger, runtime = Ledger(), Runtime()
    async with Client(runtime.calls, ledger) as client:
        models = {name: Model(source=SMOL, max_model_len=4096)}
        session = session_of(models, runtime, ledger=ledger)
        async with engines.start(session, client) as fleet:
            await fleet.up([name])
            (pgid,) = engine_groups(name)
            asked: list[asyncio.Task[Reply]] = [
                asyncio.create_task(
                    client.send(
                        call(
                            f"Write a long story about the number {n}.",
                            model=name,
                            max_tokens=200,
                            seed=n,
                        )
                    )
                )
                for n in range(20)
            ]
            await asyncio.sleep(2)
            assert not any(task.done() for task in asked)
            os.kill(_named(pgid, "EngineCore"), signal.SIGKILL)
            replies = await asyncio.gather(*asked)
            assert all(reply.text for reply in replies)
            assert ledger.events["engine restarts"] == 1
            assert ledger.model(name).calls == 20
            assert group(pgid) == []
            (pgid,) = engine_groups(name)
            assert len(group(pgid)) >= 3
            start = time.monotonic()
            await fleet.down([name])
            assert time.monotonic() - start < 10
            assert group(pgid) == []


@pytest.mark.timeout(600)
def test_a_killed_stage_leaves_no_engine(tmp_path: Path, smol_folder: Path) -> None:
    script = tmp_path / "stage.py"
    script.write_text(
        "import asyncio, sys\n"
        "from moaa.engines.server import Server, Spec\n"
        "from moaa.recipe.schema import Engines, Model\n"
        "from pathlib import Path\n"
        "async def main():\n"
        "    spec = Spec('smol', sys.argv[1], Model(source='x', max_model_len=1024), Engines(), "
        "'cpu', ('0',))\n"
        "    server = await Server.launch(spec, Path(sys.argv[2]))\n"
        "    print('started', flush=True)\n"
        "    await asyncio.sleep(600)\n"
        "asyncio.run(main())\n"
    )
    stage = subprocess.Popen(
        [sys.executable, str(script), str(smol_folder), str(tmp_path / "log")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert stage.stdout is not None
        assert stage.stdout.readline() == "started\n"
        guard_pid = child_of(stage.pid)
        while (
            len(group(pgid := child_of(guard_pid))) < 3
        ):  # vLLM's own processes: the core and the worker
            time.sleep(0.2)
            assert stage.poll() is None
    finally:
        stage.kill()
        stage.wait()
        if stage.stdout:
            stage.stdout.close()
    deadline = time.monotonic() + 10
    while (group(pgid) or group(guard_pid)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert group(pgid) == []
    assert group(guard_pid) == []


def _named(pgid: int, name: str) -> int:
    """vLLM's process with this title."""
    (found,) = [pid for pid in group(pgid) if name in Path(f"/proc/{pid}/cmdline").read_text()]
    return found
