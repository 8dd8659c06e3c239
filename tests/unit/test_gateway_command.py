"""`moaa gateway`: what it says of its file, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import pytest

from moaa import cli
from moaa.errors import RecipeError
from moaa.gateway import server
from moaa.gateway.config import parse_config
from tests.support.clients import free_port, listens
from tests.support.gateways import ask, drains
from tests.support.streaming_engine import StreamingEngine
from tests.support.waiting import async_until

GOOD = "anonymous: true\nmodels: {m: {endpoints: [http://127.0.0.1:1/v1], key_env: A_KEY}}\n"


def called(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["moaa", "gateway", *arguments])
    monkeypatch.delenv("MOAA_DEBUG", raising=False)
    with pytest.raises(SystemExit) as caught:
        cli.main()
    return int(caught.value.code or 0)


def test_check_says_whether_the_file_is_right(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(GOOD)
    monkeypatch.delenv("A_KEY", raising=False)
    assert called(monkeypatch, str(path), "--check") == 0
    out = capsys.readouterr().out
    assert out.startswith(f"{path}: OK. It serves m.")
    assert "A_KEY is not set" in out.replace("\n", " ")
    assert called(monkeypatch, str(path)) == 1
    assert "A_KEY is not set" in capsys.readouterr().err
    path.write_text(GOOD.replace("endpoints", "endpoint"))
    assert called(monkeypatch, str(path), "--check") == 1
    err = capsys.readouterr().err
    assert "g.yaml:2: models.m.endpoint is not a known field. Did you mean 'endpoints'?" in err
    assert "Traceback" not in err


def test_check_reads_the_file_of_keys_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "g.yaml"
    text = GOOD.replace(", key_env: A_KEY", "").replace("anonymous: true", "keys_file: keys.yaml")
    path.write_text(text)
    assert called(monkeypatch, str(path), "--check") == 0
    assert "keys.yaml does not exist." in capsys.readouterr().out.replace("\n", "")
    (tmp_path / "keys.yaml").write_text("keys: [{name: a}]")
    assert called(monkeypatch, str(path), "--check") == 1
    assert "keys.yaml:1: keys[0].sha256 is missing." in capsys.readouterr().err


@pytest.fixture
def as_it_was() -> Iterator[None]:
    """The collector and the signals' handlers."""
    before = gc.get_threshold()
    yield
    gc.unfreeze()
    gc.set_threshold(*before)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


@pytest.mark.both_loops
async def test_answers_in_progress_end_first(as_it_was: None) -> None:
    port, metrics = free_port(), free_port()
    with StreamingEngine("m", words=5_000, every_s=0.02) as engine:  # 100 s, but for what follows
        config = parse_config(
            f"port: {port}\nmetrics_port: {metrics}\nanonymous: true\n"
            f"models: {{m: {{endpoints: ['{engine.url}']}}}}",
            "g.yaml",
        )
        serving = asyncio.create_task(server.serve(config))
        await async_until(lambda: listens(port), "the gateway")
        base = f"http://127.0.0.1:{port}"
        async with (
            aiohttp.ClientSession() as http,
            http.post(f"{base}/v1/chat/completions", json=ask(stream=True)) as answer,
        ):
            await answer.content.readany()
            os.kill(os.getpid(), signal.SIGTERM)
            await drains(http, base)
            async with http.post(f"{base}/v1/chat/completions", json=ask()) as refused:
                assert refused.status == 503
            async with http.get(f"http://127.0.0.1:{metrics}/metrics") as numbers:
                text = await numbers.text()
            assert 'moaa_gateway_in_flight{model="m"} 1' in text
            assert 'moaa_gateway_requests_total{model="",revision="",code="503"} 1' in text
            engine.every_s = 0.0
            assert (await answer.read()).endswith(b"data: [DONE]\n\n")
        await asyncio.wait_for(serving, 10)
    assert gc.get_threshold() == server.THRESHOLDS
    assert gc.get_freeze_count() > 0


async def test_a_port_that_is_taken(as_it_was: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = parse_config(
            GOOD.replace(", key_env: A_KEY", "") + f"port: {port}\nmetrics_port: null\n", "g.yaml"
        )
        with pytest.raises(RecipeError, match=rf"port {port} of 127\.0\.0\.1 cannot be opened"):
            await server.serve(config)
