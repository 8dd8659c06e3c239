"""A gateway as a process: clients that leave, killed engines, long prompts, slow readers."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.support.clients import free_port, listens
from tests.support.gateways import ask, drains
from tests.support.streaming_engine import StreamingEngine
from tests.support.waiting import async_until, until

SOON_S = 0.2
"""Within this time an engine must see that a client has left."""


@contextmanager
def process_of(folder: Path, *urls: str, **more: Any) -> Iterator[tuple[str, subprocess.Popen]]:
    """`moaa gateway` over these servers of the model `m`: its address, and the process."""
    port = free_port()
    config = {"port": port, "metrics_port": None, "anonymous": True, **more}
    config["models"] = {"m": {"endpoints": list(urls)}}
    (folder / "gateway.yaml").write_text(json.dumps(config))
    process = subprocess.Popen(
        [sys.executable, "-m", "moaa.cli", "gateway", str(folder / "gateway.yaml")],
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        until(lambda: listens(port), "the gateway")
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.communicate()


@asynccontextmanager
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), read_bufsize=1 << 14
    ) as http:
        yield http


@pytest.mark.parametrize("case", ["in mid-stream", "before the first byte", "not streamed"])
async def test_what_a_client_leaves_is_cancelled_at_the_engine(
    tmp_path: Path, streaming_engine: StreamingEngine, case: str
) -> None:
    if case == "in mid-stream":
        streaming_engine.every_s, streaming_engine.words = 0.01, 100_000
    else:
        streaming_engine.silent_s = 60
    with process_of(tmp_path, streaming_engine.url) as (url, _):
        async with session() as http:
            body = ask(stream=case != "not streamed")
            request = asyncio.create_task(
                http.post(f"{url}/chat/completions", json=body).__aenter__()
            )
            await async_until(lambda: streaming_engine.raw, "the request at the engine")
            if case == "in mid-stream":
                answer = await request
                assert await answer.content.readany()
                answer.close()
            else:
                request.cancel()
            left_at = time.monotonic()
            await async_until(lambda: streaming_engine.left, "the client's leaving at the engine")
    assert streaming_engine.left_at - left_at < SOON_S


@pytest.fixture
def victim() -> Iterator[tuple[str, subprocess.Popen]]:
    """An engine in a process of its own: its address, and the process."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.streaming_engine", str(port), "m"]
    )
    try:
        until(lambda: listens(port), "the other engine")
        yield f"http://127.0.0.1:{port}/v1", process
    finally:
        process.kill()
        process.wait()


async def test_a_killed_engine_ends_its_own_streams_only(
    tmp_path: Path, streaming_engine: StreamingEngine, victim: tuple[str, subprocess.Popen]
) -> None:
    """Each of them ends with an error event and `[DONE]`; new requests meet no error."""
    streaming_engine.every_s, streaming_engine.words = 1.0, 150  # none ends before the kill
    streams, metrics = 200, free_port()
    with process_of(tmp_path, streaming_engine.url, victim[0], metrics_port=metrics) as (url, _):
        async with session() as http:
            await _both_answer(http, metrics)

            async def stream() -> list[str]:
                async with http.post(f"{url}/chat/completions", json=ask(stream=True)) as got:
                    assert got.status == 200
                    return (await got.text()).split("\n\n")

            running = [asyncio.create_task(stream()) for _ in range(streams)]
            await async_until(lambda: streaming_engine.streaming == streams // 2, "half of them")
            victim[1].send_signal(signal.SIGKILL)
            streaming_engine.every_s = 0.0
            later = await asyncio.gather(*[stream() for _ in range(20)])
            ended = await asyncio.gather(*running)
    broken = [events for events in ended if '"error"' in events[-3]]
    whole = [events for events in ended if len(events) == 150 + 2]
    assert len(broken) + len(whole) == streams
    assert 0 < len(broken) <= streams // 2
    for events in broken:
        assert json.loads(events[-3].removeprefix("data: "))["error"]["code"] == "stream_broken"
        assert events[-2:] == ["data: [DONE]", ""]
        assert all(json.loads(each.removeprefix("data: ")) for each in events[:-2])
    assert all(len(events) == 150 + 2 for events in later)


async def _both_answer(http: aiohttp.ClientSession, metrics: int) -> None:
    ready = 'moaa_gateway_ready_replicas{model="m"} 2'
    for _ in range(500):
        async with http.get(f"http://127.0.0.1:{metrics}/metrics") as found:
            if ready in await found.text():
                return
        await asyncio.sleep(0.02)
    raise AssertionError("not both engines are ready")


async def test_prompts_of_two_mebibytes(tmp_path: Path, streaming_engine: StreamingEngine) -> None:
    body = json.dumps(ask("ä" * (1 << 20), stream=True), ensure_ascii=False).encode()
    assert len(body) > 2 << 20
    with process_of(tmp_path, streaming_engine.url) as (url, _):
        async with session() as http:

            async def send() -> bytes:
                async with http.post(f"{url}/chat/completions", data=_pieces(body)) as answer:
                    assert answer.status == 200
                    return await answer.read()

            answers = await asyncio.gather(*[send() for _ in range(8)])
    assert streaming_engine.raw == [body] * 8
    assert all(answer.endswith(b"data: [DONE]\n\n") for answer in answers)


async def test_long_prompts_are_not_kept_while_their_answers_stream(
    tmp_path: Path, streaming_engine: StreamingEngine
) -> None:
    """40 prompts of 2 MiB: parsed and kept they would be several times 80 MiB."""
    streaming_engine.every_s, streaming_engine.words = 0.2, 10_000
    body = json.dumps(ask("x" * (2 << 20), stream=True)).encode()
    with process_of(tmp_path, streaming_engine.url) as (url, process):
        async with session() as http:
            before = _rss_mib(process.pid)
            answers = []
            for _ in range(40):
                answer = await http.post(f"{url}/chat/completions", data=_pieces(body))
                await answer.content.readany()
                answers.append(answer)
            assert _rss_mib(process.pid) < before + 60
            for answer in answers:
                answer.close()


async def _pieces(body: bytes) -> AsyncIterator[bytes]:
    for at in range(0, len(body), 1 << 16):
        yield body[at : at + (1 << 16)]


async def test_slow_readers_cost_no_memory(
    tmp_path: Path, streaming_engine: StreamingEngine
) -> None:
    """The engine has to wait instead: of a gigabyte only what buffers hold is written."""
    streaming_engine.words, streaming_engine.pads = 5_000, 20_000  # 100 MB a stream
    with process_of(tmp_path, streaming_engine.url) as (url, process):
        async with session() as http:
            answers = [
                await http.post(f"{url}/chat/completions", json=ask(stream=True)) for _ in range(10)
            ]
            before = _rss_mib(process.pid)
            await _stands_still(streaming_engine)
            assert _rss_mib(process.pid) < before + 20
            assert streaming_engine.written < 10 * (16 << 20)
            for answer in answers:
                answer.close()
            await async_until(lambda: streaming_engine.left == 10, "all of them")


async def _stands_still(streaming_engine: StreamingEngine) -> None:
    written, since = -1, time.monotonic()
    while time.monotonic() - since < 1:
        if streaming_engine.written != written:
            written, since = streaming_engine.written, time.monotonic()
        await asyncio.sleep(0.05)


def _rss_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


async def test_answers_in_progress_end_before_the_process_does(
    tmp_path: Path, streaming_engine: StreamingEngine
) -> None:
    streaming_engine.every_s, streaming_engine.words = 0.05, 2_000  # 100 s, but for the next change
    with process_of(tmp_path, streaming_engine.url) as (url, process):
        async with session() as http:
            async with http.post(f"{url}/chat/completions", json=ask(stream=True)) as answer:
                await answer.content.readany()
                process.send_signal(signal.SIGTERM)
                await drains(http, url.removesuffix("/v1"))
                async with http.post(f"{url}/chat/completions", json=ask()) as refused:
                    assert refused.status == 503
                    assert refused.headers["x-should-retry"] == "true"
                streaming_engine.every_s = 0.0
                assert (await answer.read()).endswith(b"data: [DONE]\n\n")
            assert await asyncio.to_thread(process.wait, 10) == 0


async def test_a_second_signal_cuts_answers_off(
    tmp_path: Path, streaming_engine: StreamingEngine
) -> None:
    streaming_engine.every_s, streaming_engine.words = 0.02, 100_000
    with process_of(tmp_path, streaming_engine.url) as (url, process):
        async with session() as http:
            answer = await http.post(f"{url}/chat/completions", json=ask(stream=True))
            await answer.content.readany()
            process.send_signal(signal.SIGTERM)
            await drains(http, url.removesuffix("/v1"))
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(process.wait, 10) == 0
            answer.close()
    await async_until(lambda: streaming_engine.left == 1, "the engine's request")
