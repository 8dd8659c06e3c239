"""Sends one request of the chat protocol over HTTP and reads the answer,
within limits of time and length."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Final

import aiohttp
from yarl import URL

from moaa.chat.fault import CONNECTION, TIME_OUT, Fault, shorten
from moaa.chat.pool import Endpoint
from moaa.chat.pooling import PATHS
from moaa.chat.proxies import proxy_for
from moaa.errors import EngineError
from moaa.rest import NO_HEADER, fits_a_header

KEEP_ALIVE_S: Final = 4.0
"""Idle connections are closed earlier than vLLM closes them (5 s): a request on a connection that
is just being closed is lost."""
LONGEST_ANSWER: Final = 64 << 20
"""The most bytes of an answer. The log-probabilities of 30,000 tokens fit."""
LONGEST_ERROR: Final = 64 << 10
SHORTEST_SECRET: Final = 16
"""A shorter key (`EMPTY`, `none`) may be a word of an answer."""
METRICS_TIMEOUT_S: Final = 4.0


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """What a server answered. `after_s`: how long it asked to wait; `seconds`: how long it took."""

    status: int
    body: bytes
    after_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class _Address:
    url: URL
    headers: dict[str, str]
    proxy: URL | None


class Http:
    """The connections to all servers."""

    def __init__(self, timeout_s: float, connect_timeout_s: float) -> None:
        self._timeout_s, self._connect_timeout_s = timeout_s, connect_timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._addresses: dict[Endpoint, _Address] = {}

    async def open(self) -> None:
        """Get ready to connect. Call it in the event loop that sends the requests."""
        self._session = aiohttp.ClientSession(
            # No limit: the pools bound what is in flight.
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Compressing an answer costs more than sending it.
            skip_auto_headers=("Accept", "Accept-Encoding"),
            headers={"User-Agent": "moaa", "Content-Type": "application/json"},
        )

    async def close(self) -> None:
        """Close all connections."""
        if self._session is not None:
            await self._session.close()

    async def post(
        self, endpoint: Endpoint, model: str, body: bytes, timeout_s: float | None = None
    ) -> HttpAnswer:
        """Return the server's answer within `timeout_s` (default: the client's). Raises `Fault` if
        there is none, EngineError if the endpoint's address cannot be used. `model` is only for
        messages."""
        assert self._session is not None, "the client is used outside its `async with`"
        address = self._addresses.get(endpoint) or self._address(endpoint, model)
        limit_s = self._timeout_s if timeout_s is None else min(timeout_s, self._timeout_s)
        start = time.perf_counter()
        try:
            async with self._session.post(
                address.url,
                data=body,
                headers=address.headers,
                proxy=address.proxy,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(
                    total=limit_s, sock_connect=min(self._connect_timeout_s, limit_s)
                ),
            ) as response:
                answer = await _read(response)
        except aiohttp.ConnectionTimeoutError:
            raise Fault(
                CONNECTION, f"no connection within {limit_s:.0f} s{_through(address)}"
            ) from None
        except TimeoutError:
            raise Fault(TIME_OUT, f"no answer within {limit_s:.0f} s{_through(address)}") from None
        except (aiohttp.ClientError, OSError) as error:
            said = shorten(str(error) or type(error).__name__)
            raise Fault(CONNECTION, f"{said}{_through(address)}") from None
        answer = without_key(response.status, answer, endpoint.key)
        after_s = retry_after(response.headers.get("Retry-After"))
        return HttpAnswer(response.status, answer, after_s, time.perf_counter() - start)

    async def metrics(self, endpoint: Endpoint) -> str | None:
        """Return the text at the server's /metrics; "" if it could not be read now; None if there
        is none. No key is sent."""
        assert self._session is not None, "the client is used outside its `async with`"
        try:
            url = URL(endpoint.url.rstrip("/").removesuffix("/v1") + "/metrics")
            async with self._session.get(
                url,
                proxy=None if endpoint.kept else proxy_for(url),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=METRICS_TIMEOUT_S),
            ) as response:
                if response.status != 200:
                    return "" if response.status >= 500 else None
                text = await _read(response)
        except (ValueError, Fault):  # not a usable address; a text without end
            return None
        except (aiohttp.ClientError, OSError):  # a time-out too
            return ""
        return text.decode(errors="replace")

    def _address(self, endpoint: Endpoint, model: str) -> _Address:
        try:
            url = _url_of(endpoint)
            if url.scheme not in ("http", "https") or not url.host:
                raise ValueError("it must start with http:// or https:// and a host")
            url.host.encode("idna")  # as the look-up of its address does
            # Our own engines are on this machine or in this cluster.
            proxy = None if endpoint.kept else proxy_for(url)
        except ValueError as error:
            raise EngineError(
                f"model '{model}': `endpoint.url` is '{endpoint.url}', which cannot be reached: "
                f"{error}"
            ) from None
        # Keys that come from files end in a newline, which a header must not contain.
        key = (endpoint.key or "").strip()
        if not fits_a_header(key):
            raise EngineError(
                f"model '{model}': the API key for {endpoint.shown} cannot be sent: {NO_HEADER}. "
                "Set its environment variable to the key alone."
            )
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._addresses[endpoint] = found = _Address(url, headers, proxy)
        return found


def _url_of(endpoint: Endpoint) -> URL:
    base = endpoint.url.rstrip("/")
    if path := PATHS.get(endpoint.task):
        return URL(base.removesuffix("/v1") + path)
    return URL(base + "/chat/completions")


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """Return the body. For an error, read only enough for its message."""
    longest = LONGEST_ANSWER if response.status == 200 else LONGEST_ERROR
    parts, size = [], 0
    async for part in response.content.iter_any():
        parts.append(part)
        size += len(part)
        if size > longest:
            if response.status != 200:
                break
            raise Fault(
                "garbled answer", f"the answer is longer than {longest >> 20} MiB", alive=True
            )
    return b"".join(parts)


def without_key(status: int, body: bytes, key: str | None) -> bytes:
    """Return the body without the key, which some servers repeat in their errors. The text of an
    answer stays as the model wrote it."""
    secret = (key or "").strip().encode()
    if not secret or (status == 200 and len(secret) < SHORTEST_SECRET):
        return body
    return body.replace(secret, b"***")


def _through(address: _Address) -> str:
    if address.proxy is None:
        return ""
    return f" (through the proxy {address.proxy.host}:{address.proxy.port})"


def retry_after(value: str | None) -> float:
    """Return the seconds that a Retry-After header asks for (a number or a date); 0 without one."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):
            return 0.0
    return max(0.0, seconds) if math.isfinite(seconds) else 0.0
