"""Endpoints are reached as the environment's proxy variables say, this machine and engines of ours
directly."""

from __future__ import annotations

from typing import Any

import pytest
from aiohttp import web
from yarl import URL

from moaa.chat.client import Client
from moaa.chat.pool import Endpoint
from moaa.chat.proxies import proxy_for
from moaa.errors import EngineError
from moaa.ledger import Ledger
from moaa.recipe.schema import Calls
from tests.support.clients import QUICK, call
from tests.support.engine_answers import answer
from tests.support.serving import Served

NAMES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@pytest.fixture(autouse=True)
def no_proxy_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


class Proxy(Served):
    """Answers itself what it is asked to fetch, and remembers the addresses."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, str | None]] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._fetch)
        return app

    async def _fetch(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.raw_path, request.headers.get("Proxy-Authorization")))
        return web.json_response(answer(await request.json()))


async def test_an_endpoint_is_reached_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    with Proxy() as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://user:word@127.0.0.1:{proxy.port}")
        async with Client(Calls(), Ledger()) as client:
            client.pool("m").add(Endpoint("http://models.corp.invalid/v1", "m"))
            assert (await client.send(call())).text
    ((asked, login),) = proxy.asked
    assert asked == "http://models.corp.invalid/v1/chat/completions"
    assert login is not None


async def test_a_proxy_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Client(Calls(timeout_s=0.2, retries=0), Ledger(), QUICK) as client:
        client.pool("m").add(Endpoint("http://models.corp.invalid/v1", "m"))
        with pytest.raises(EngineError, match=r"through the proxy 127\.0\.0\.1:9"):
            await client.send(call())


async def test_an_engine_of_ours_is_never_reached_through_a_proxy(
    server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    async with Client(Calls(), Ledger()) as client:
        client.pool("m").add(Endpoint(server.url, "m"))
        assert (await client.send(call())).text
        address = client._http._address(Endpoint("http://10.0.0.7:8000/v1", "m", kept=True), "m")
        assert address.proxy is None


@pytest.mark.parametrize(
    ("url", "variables", "proxy"),
    [
        ("https://api.example.com/v1", {}, None),
        ("https://api.example.com/v1", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
        ("https://api.example.com/v1", {"https_proxy": "p:1"}, "http://p:1"),
        ("https://api.example.com/v1", {"HTTP_PROXY": "http://p:1"}, None),
        ("https://api.example.com/v1", {"ALL_PROXY": "http://p:1"}, "http://p:1"),
        ("http://10.1.2.3/v1", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
        ("http://10.1.2.3/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, None),
        ("http://10.1.2.3/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "10.1.2.3"}, None),
        ("http://[fd00::1]/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "fd00::/8"}, None),
        ("http://a.corp/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "x, .corp"}, None),
        ("http://a.corp:81/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "a.corp:81"}, None),
        ("http://a.corp/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "*"}, None),
        ("http://a.corp/v1", {"HTTP_PROXY": "http://p:1", "NO_PROXY": "b.corp"}, "http://p:1"),
        *[
            (f"http://{inside}/v1", {"HTTP_PROXY": "http://p:1"}, None)
            for inside in (
                "127.0.0.1:8000",
                "127.9.9.9",
                "[::1]:8000",
                "localhost:8000",
                "LOCALHOST",
                "a.localhost",
                "vllm",
                "vllm.moaa.svc",
                "vllm.moaa.svc.cluster.local:8000",
            )
        ],
    ],
)
def test_the_proxy_of_an_address(
    url: str, variables: dict[str, str], proxy: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert proxy_for(URL(url)) == (None if proxy is None else URL(proxy))


@pytest.mark.parametrize("value", ["socks5://u:hunter2@p:1", "http://:hunter2", "http://[hunter2"])
async def test_a_proxy_that_is_none_is_an_error_that_names_the_variable(
    value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    async with Client(Calls(), Ledger()) as client:
        client.pool("m").add(Endpoint("https://models.corp.invalid/v1", "m"))
        with pytest.raises(EngineError, match="HTTPS_PROXY") as error:
            await client.send(call())
        assert "hunter2" not in str(error.value)
