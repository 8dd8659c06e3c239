"""Calls to the members' engines: the least busy replica, then another one if it gives nothing.

When the calling task is cancelled, the connection is closed, and the engine stops its work.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any, Protocol

import aiohttp

from moaa.chat.http import LONGEST_ANSWER, LONGEST_ERROR, retry_after
from moaa.gateway.backend import Backend, Replica
from moaa.gateway.mixtures.chunks import DONE, Events
from moaa.gateway.relay import said
from moaa.gateway.tries import Lost, Tries
from moaa.gateway.wire import ApiError
from moaa.progress.messages import log

if TYPE_CHECKING:
    from moaa.gateway.state import Gateway

PATH = "/chat/completions"
Fields = Mapping[str, Any]
"""The fields of a request except the model's name."""


class Engines(Protocol):
    """How members are asked. Both methods raise ApiError if there is no answer."""

    async def whole(self, model: str, fields: Fields) -> bytes:
        """Return the body of an answer that is not streamed."""
        ...

    def chunks(self, model: str, fields: Fields) -> AsyncGenerator[bytes, None]:
        """Yield the data of each event of a stream, without the final `[DONE]`."""
        ...


class Upstream:
    """The engines of a gateway for one request. `headers` go to each of them."""

    def __init__(
        self, gateway: Gateway, headers: Mapping[str, str], affinity: str | None, label: str
    ) -> None:
        self._gateway, self._headers = gateway, headers
        self._affinity, self._label = affinity, label

    async def whole(self, model: str, fields: Fields) -> bytes:
        """Return the body of an answer that is not streamed."""
        async with AsyncExitStack() as stack:
            _, _, body = await self._opened(stack, model, fields, whole=True)
            return self._gateway.backends[model].hidden(body)

    async def chunks(self, model: str, fields: Fields) -> AsyncGenerator[bytes, None]:
        """Yield the data of each event of a stream. Raises ApiError if it breaks off."""
        options = {"stream": True, "stream_options": {"include_usage": True}}
        events, ended = Events(), False
        async with AsyncExitStack() as stack:
            upstream, replica, part = await self._opened(
                stack, model, {**fields, **options}, whole=False
            )
            try:
                while part and not ended:
                    for data in events.feed(part):
                        if ended := data == DONE:
                            break
                        yield self._gateway.backends[model].hidden(data)
                    else:
                        part = await upstream.content.readany()
            except (aiohttp.ClientError, OSError) as error:  # a time-out too
                raise self._broken(model, replica, said(error)) from None
            if not ended:
                raise self._broken(model, replica, "its end did not come")

    def _broken(self, model: str, replica: Replica, why: str) -> ApiError:
        log.warning(f"{self._label}: {model} at {replica.endpoint.shown}: {why}")
        backend = self._gateway.backends[model]
        backend.failed(replica)
        self._gateway.checks.check(backend, replica)
        self._gateway.metrics.broken.add(model)
        return ApiError(
            502, f"The server of '{model}' broke off in the middle of its answer.", "stream_broken"
        )

    async def _opened(
        self, stack: AsyncExitStack, model: str, fields: Fields, *, whole: bool
    ) -> tuple[aiohttp.ClientResponse, Replica, bytes]:
        """Return an answer that has begun, its replica,
        and its first bytes (`whole`: all of them)."""
        backend = self._gateway.backends[model]
        body = json.dumps({"model": backend.served_name, **fields}, ensure_ascii=False).encode(
            "utf-8", "replace"
        )
        tries = Tries(self._gateway, backend)
        while True:
            replica = stack.enter_context(backend.replica(self._affinity, tries.without))
            try:
                upstream, first = await self._attempt(stack, backend, replica, body, whole=whole)
                return upstream, replica, first
            except Lost as again:
                lost = again
            await stack.aclose()
            tries.lost(replica, lost)

    async def _attempt(
        self, stack: AsyncExitStack, backend: Backend, replica: Replica, body: bytes, *, whole: bool
    ) -> tuple[aiohttp.ClientResponse, bytes]:
        try:
            upstream = await stack.enter_async_context(
                self._gateway.http.post(
                    replica.at(PATH),
                    data=body,
                    headers={**self._headers, **replica.headers},
                    proxy=replica.proxy,
                    allow_redirects=False,
                )
            )
            if upstream.status >= 300:
                await _refused(backend, upstream)
            backend.answered(replica)
            return upstream, await (_read(upstream) if whole else upstream.content.readany())
        except aiohttp.ConnectionTimeoutError:
            raise Lost(backend.not_up(), doubtful=True, sent=False) from None
        except TimeoutError:
            idle_s = self._gateway.config.times.idle_s
            detail = f"The server of '{backend.name}' sent nothing for {idle_s:g} s."
            raise ApiError(504, detail) from None
        except aiohttp.ClientConnectorError as error:
            log.warning(f"{self._label}: {replica.endpoint.shown}: {said(error)}")
            raise Lost(backend.not_up(), doubtful=True, sent=False) from None
        except (aiohttp.ClientError, OSError) as error:
            log.warning(f"{self._label}: {replica.endpoint.shown}: {said(error)}")
            detail = f"The server of '{backend.name}' broke off before its answer."
            raise Lost(ApiError(502, detail, "bad_gateway"), doubtful=True, sent=True) from None


async def _refused(backend: Backend, upstream: aiohttp.ClientResponse) -> None:
    """Raise the error for a status other than 200: Lost if another replica may do better."""
    text = await upstream.content.read(LONGEST_ERROR)
    after_s = retry_after(upstream.headers.get("Retry-After"))
    error = backend.refusal(upstream.status, text, after_s)
    if upstream.status in (429, 503):
        raise Lost(error, doubtful=False, sent=False)
    if upstream.status >= 500:
        raise Lost(error, doubtful=False, sent=True)
    raise error


async def _read(upstream: aiohttp.ClientResponse) -> bytes:
    parts, size = [], 0
    while part := await upstream.content.readany():
        parts.append(part)
        size += len(part)
        if size > LONGEST_ANSWER:
            raise ApiError(502, "The engine's answer is too long.", "bad_gateway")
    return b"".join(parts)
