"""Waits until a model is up. A model that is asleep is woken, if the key has the right."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from aiohttp import web

from moaa.gateway.backend import Backend
from moaa.gateway.waker import Waker, asleep, may_not_wake
from moaa.gateway.wire import UNBUFFERED

if TYPE_CHECKING:
    from moaa.gateway.state import ClientRequest

STREAM: Final = {
    "Content-Type": "text/event-stream; charset=utf-8",
    **UNBUFFERED,
}


async def wait_until_up(
    asked: ClientRequest, backends: Iterable[Backend], *, wait: bool = True
) -> None:
    """Wait until each backend has a replica that answers, or cannot be woken from here. `wait`
    false: return as soon as the starts have begun.

    A streamed request gets its headers at once, and then comments that say how long it takes. Other
    requests raise ApiError 503 with the time to wait, and so does a key without the right to wake.
    """
    link = asked.gateway.cluster_link
    waker = link.waker if link is not None else None
    if link is None or waker is None:
        return
    may = asked.caller.rights.wake
    sleeping: list[str] = []
    for backend in backends:
        service = link.service_of(backend.name)
        if service is None:
            continue
        if backend.state == "asleep" and may:
            sleeping.append(service)
        elif backend.state == "asleep" and wait:
            raise may_not_wake(backend.name)
        elif backend.asleep and may:  # it is up: keep it from going to sleep
            waker.used(service)
    started = [waker.wake(service) for service in sleeping]  # all at once
    if not wait:
        return
    if started and not asked.body.streamed:
        raise asleep(max(started, key=lambda each: each.left_s))
    for service in sleeping:
        await _hold(asked, waker, service)


async def _hold(asked: ClientRequest, waker: Waker, service: str) -> None:
    response = await begin_stream(asked, waker.backends[service].revision)
    metrics, name = asked.gateway.metrics, waker.backends[service].name
    metrics.waiting.add(name)
    try:
        async for waking in waker.until_up(service):
            await response.write(f": {waking}\n\n".encode())
    finally:
        metrics.waiting.add(name, by=-1)


async def begin_stream(asked: ClientRequest, revision: str | None = None) -> web.StreamResponse:
    """Return the stream to the client, with its headers sent.
    A later failure is written into the stream."""
    if asked.response is None:
        headers = {"x-request-id": asked.id, **STREAM}
        if revision:
            headers["x-moaa-revision"] = revision
        asked.response = web.StreamResponse(headers=headers)
        await asked.response.prepare(asked.request)
    return asked.response
