"""Passes a request on to a plain model, byte for byte, and its answer back.

A replica that cannot be reached, or that breaks off before the first byte of its answer, is
skipped, and another one is asked. After the first byte, a broken stream ends with an error event.
When the client leaves, the connection to the engine is closed at once.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import aiohttp
from aiohttp import web

from moaa.chat.http import LONGEST_ERROR, retry_after
from moaa.gateway.backend import Backend, Replica
from moaa.gateway.feedback.answer_reader import AnswerReader
from moaa.gateway.guard import RequestOutcome, RequestWatch
from moaa.gateway.relay import Broken, Stream, end, relay, said, usage_in, verdict_on
from moaa.gateway.tries import Lost, Tries
from moaa.gateway.wire import UNBUFFERED, ApiError
from moaa.progress.messages import log

if TYPE_CHECKING:
    from moaa.gateway.state import ClientRequest

LARGE: Final = 1 << 20
"""A larger body is sent in pieces: in one piece it would block the event loop."""
LONGEST_WHOLE: Final = 4 << 20
"""An answer up to this size is read completely before it is passed back. If its engine breaks off,
another replica can be asked."""


async def pass_on(
    asked: ClientRequest,
    backend: Backend,
    *,
    affinity: str | None = None,
    watch: RequestWatch | None = None,
) -> web.StreamResponse:
    """Return the answer of the replica with the fewest requests in flight. Raises ApiError while no
    part of an answer has been sent to the client. A stream may have begun with comments (see
    `up`)."""
    tries = Tries(asked.gateway, backend)
    while True:
        with backend.replica(affinity, tries.without) as replica:
            try:
                return await _Attempt(asked, backend, replica, watch).run()
            except Lost as again:
                lost = again
        tries.lost(replica, lost)


@dataclass(slots=True)
class _Attempt:
    """One request at one replica."""

    asked: ClientRequest
    backend: Backend
    replica: Replica
    watch: RequestWatch | None
    sent_at: float = 0.0
    first_at: float = 0.0
    begun: bool = False
    """Whether a part of the answer has been sent to the client."""

    async def run(self) -> web.StreamResponse:
        asked, backend = self.asked, self.backend
        counting = asked.counts_usage(backend.name)
        self.sent_at = time.perf_counter()
        try:
            async with asked.gateway.http.post(
                self.replica.at(asked.path),
                data=_payload(asked.body.for_model(backend.served_name, with_usage=counting)),
                headers={**asked.forwarded, **self.replica.headers},
                proxy=self.replica.proxy,
                allow_redirects=False,
            ) as upstream:
                if upstream.status >= 300:
                    await self._refused(upstream)
                backend.answered(self.replica)
                first = await upstream.content.readany()
                self.first_at = time.perf_counter()
                if upstream.content_type == "text/event-stream":
                    if not first:
                        raise self._broke_off(Broken("it sent no byte of its stream"))
                    return await self._stream(first, upstream, without_usage=counting)
                return await self._whole(first, upstream)
        except aiohttp.ServerTimeoutError as error:
            raise self._timed_out(error) from None
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error) from None
        except (aiohttp.ClientError, OSError) as error:
            if self.begun or _left(asked):
                raise  # the client left
            raise self._broke_off(error) from None

    async def _refused(self, upstream: aiohttp.ClientResponse) -> None:
        """Raise the error for a status other than 200: Lost if another replica may do better."""
        text = await upstream.content.read(LONGEST_ERROR)
        after_s = retry_after(upstream.headers.get("Retry-After"))
        error = self.backend.refusal(upstream.status, text, after_s)
        self.backend.answered(self.replica)
        self._observe(upstream.status)
        if upstream.status in (429, 503):
            raise Lost(error, doubtful=False, sent=False)
        if upstream.status >= 500:
            raise Lost(error, doubtful=False, sent=True)
        raise error

    def _timed_out(self, error: Exception) -> Exception:
        self._observe(504)
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            return self._unreachable(error)
        times = self.asked.gateway.config.times
        return ApiError(
            504, f"The server of '{self.backend.name}' sent nothing for {times.idle_s:g} s."
        )

    def _unreachable(self, error: Exception) -> Lost:
        self._observe(503)
        self._say(error)
        return Lost(self.backend.not_up(), doubtful=True, sent=False)

    def _say(self, error: Exception) -> None:
        where = f"{self.backend.name} at {self.replica.endpoint.shown}"
        log.warning(f"{self.asked.id}: {where}: {said(error)}")

    def _broke_off(self, error: Exception) -> Lost:
        self._observe(502)
        self._say(error)
        broken = ApiError(
            502, f"The server of '{self.backend.name}' broke off before its answer.", "bad_gateway"
        )
        return Lost(broken, doubtful=True, sent=True)

    async def _whole(self, first: bytes, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass back an answer that is not streamed."""
        parts, size, chunk = [], 0, first
        while chunk:
            parts.append(chunk)
            size += len(chunk)
            if size > LONGEST_WHOLE:
                return await self._large(b"".join(parts), upstream)
            chunk = await upstream.content.readany()
        data = b"".join(parts)
        self._count(data)
        if self.watch is not None:
            self._observe(200, *verdict_on(data))
        if self.asked.response is not None:
            raise ApiError(502, f"The server of '{self.backend.name}' did not stream.")
        if (reader := self.asked.answer_reader) is not None:
            reader.whole(data)
            self._keep(reader)
        return web.Response(body=data, headers=self._headers(upstream))

    def _keep(self, reader: AnswerReader) -> None:
        name, _, _ = self.asked.body.model.partition("@")
        self.asked.keep(name, self.backend.revision, reader.choices)

    async def _large(self, start: bytes, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        """Pass back an answer that is too long to keep: bytes are sent as they come."""
        response = await self._begin(upstream)
        chunk, latest = start, b""
        while chunk:
            await response.write(chunk)
            latest = (latest + chunk)[-LARGE:]
            try:
                chunk = await upstream.content.readany()
            except (aiohttp.ClientError, OSError) as error:
                self._count_broken(error)
                if (transport := self.asked.request.transport) is not None:
                    transport.abort()  # else half an answer would look complete
                return response
        self._count(latest)
        return response

    async def _stream(
        self, first: bytes, upstream: aiohttp.ClientResponse, *, without_usage: bool
    ) -> web.StreamResponse:
        gateway, name = self.asked.gateway, self.backend.name
        response = await self._begin(upstream)
        stream = Stream(gateway.now(), watched=self.watch is not None)
        if self.watch is not None:
            self.watch.first_token()
        reader = self.asked.answer_reader
        if reader is None:
            self.asked.body.forget()
        written = response if reader is None else reader.before(response)
        with gateway.moving(stream):
            self._time_first()
            try:
                await relay(
                    first,
                    upstream.content,
                    written,
                    stream,
                    without_usage=without_usage,
                    hidden=self.backend.hidden,
                )
                if not self.asked.ends_without_done:
                    await end(response, stream)
            except Broken as broken:
                self._count_broken(broken)
                await response.write(self.asked.last_event(_broken_stream(name)))
            else:
                self._observe(200, not stream.text_seen, stream.cut, streamed=True)
                if reader is not None:
                    self._keep(reader)
            self._count(stream.usage_chunk, streamed=True)
        return response

    def _count_broken(self, error: Exception) -> None:
        """Count an engine that broke off in the middle of its answer, and put it in doubt."""
        gateway, name = self.asked.gateway, self.backend.name
        gateway.metrics.broken.add(name)
        self._say(error)
        self.backend.failed(self.replica)
        gateway.checks.check(self.backend, self.replica)
        self._observe(502)

    async def _begin(self, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
        self.begun = True
        if (response := self.asked.response) is None:  # else it began while the model was starting
            response = web.StreamResponse(status=upstream.status, headers=self._headers(upstream))
            self.asked.response = response
            await response.prepare(self.asked.request)
        return response

    def _headers(self, upstream: aiohttp.ClientResponse) -> dict[str, str]:
        found = {"x-request-id": self.asked.id, **self.asked.kept_headers}
        for name in ("Content-Type", "Content-Encoding"):
            if value := upstream.headers.get(name):
                found[name] = value
        if self.backend.revision:
            found["x-moaa-revision"] = self.backend.revision
        if upstream.content_type == "text/event-stream":
            found |= UNBUFFERED
        return found

    def _time_first(self) -> None:
        """Count the time to the first byte, and the gateway's own share of it."""
        metrics, name, now = self.asked.gateway.metrics, self.backend.name, time.perf_counter()
        metrics.first_token.add(now - self.asked.started, name, self.backend.revision or "")
        own = (self.sent_at - self.asked.started) + (now - self.first_at)
        metrics.overhead.add(own, name)

    def _count(self, data: bytes, *, streamed: bool = False) -> None:
        """Count the tokens that this answer reports."""
        usage = usage_in(data)
        if usage is not None:
            self.asked.spend(self.backend.name, self.backend.name, usage)
        elif streamed:
            self.asked.gateway.metrics.uncounted.add(self.backend.name)

    def _observe(
        self, status: int, empty: bool = False, cut: bool = False, *, streamed: bool = False
    ) -> None:
        if self.watch is not None:
            at = self.first_at if streamed else time.perf_counter()
            first_s = at - self.sent_at if status < 300 else None
            self.watch.seen(
                RequestOutcome(self.backend.revision or "", status, first_s, empty, cut)
            )


def _left(asked: ClientRequest) -> bool:
    """Return whether the client of a stream that has begun is gone."""
    transport = asked.request.transport
    return asked.response is not None and (transport is None or transport.is_closing())


def _payload(body: bytes) -> bytes | io.BytesIO:
    return body if len(body) < LARGE else io.BytesIO(body)


def _broken_stream(name: str) -> ApiError:
    return ApiError(
        502, f"The server of '{name}' broke off in the middle of its answer.", "stream_broken"
    )
