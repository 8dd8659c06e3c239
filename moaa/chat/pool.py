"""The servers of one model, and which of them takes the next request: the one with the least in
flight."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from moaa.errors import EngineError

REST_S = 0.5
"""After a fault a server rests so long, twice as long after each further one in a row, at most
`MAX_REST_S`."""
MAX_REST_S = 30.0


@dataclass(eq=False, slots=True)
class Endpoint:
    """One server of a model. `url` ends before `/chat/completions`; `model` is the name the server
    knows it by."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    """The API key itself: sent, never shown."""
    in_flight: int = 0
    faults: int = 0
    """Times in a row that it failed instead of answering."""
    rests_until: float = 0.0
    """time.monotonic() until which it gets nothing."""
    unreachable_since: float | None = None


class Pool:
    """The endpoints of one model, at most `in_flight` requests each. Those who wait are served in
    the order they came.

    A server that fails has the least in flight of all, so it would draw every call: it rests
    instead, and then gets one request at a time until it answers. When no server could be reached
    for `patience_s`, the pool fails.
    """

    def __init__(self, model: str, in_flight: int, patience_s: float = 600.0) -> None:
        self.model = model
        self.endpoints: list[Endpoint] = []
        self._limit = in_flight
        self._patience_s = patience_s
        self._waiting: deque[asyncio.Future[Endpoint]] = deque()
        self._failure: EngineError | None = None

    @property
    def in_flight(self) -> int:
        return sum(endpoint.in_flight for endpoint in self.endpoints)

    def add(self, endpoint: Endpoint) -> None:
        self.endpoints.append(endpoint)
        self._serve_waiting()

    def remove(self, endpoint: Endpoint) -> None:
        """No request goes there any more; those in flight end as they end. Removing it twice is the
        same as once."""
        if endpoint in self.endpoints:
            self.endpoints.remove(endpoint)

    def fail(self, error: EngineError) -> None:
        """The model will not come back: all who wait, and all who come later, get the error."""
        self._failure = error
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    async def acquire(self) -> Endpoint:
        """A place at the endpoint with the least in flight; waits while there is none. Give it back
        with `release`."""
        if self._failure is not None:
            raise self._failure
        if not self._waiting and (endpoint := self._least_in_flight()) is not None:
            endpoint.in_flight += 1
            return endpoint
        waiter = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                self.release(
                    waiter.result()
                )  # the place came in the moment the caller was cancelled
            raise

    def release(self, endpoint: Endpoint) -> None:
        endpoint.in_flight -= 1
        self._serve_waiting()

    def answered(self, endpoint: Endpoint) -> None:
        """It works (again)."""
        if endpoint.faults:
            endpoint.faults, endpoint.rests_until, endpoint.unreachable_since = 0, 0.0, None
            self._serve_waiting()

    def failed(
        self, endpoint: Endpoint, detail: str, *, after_s: float = 0.0, reached: bool = True
    ) -> None:
        """It did not answer: it rests, at least the `after_s` that it asked for. Many at once count
        as one fault."""
        now = time.monotonic()
        if now >= endpoint.rests_until:
            rest_s = after_s + min(MAX_REST_S, REST_S * 2 ** min(endpoint.faults, 16))
            endpoint.faults += 1
        else:
            rest_s = after_s
        endpoint.rests_until = max(endpoint.rests_until, now + rest_s)
        self._serve_after_rest(endpoint)
        if reached:
            endpoint.unreachable_since = None
        elif endpoint.unreachable_since is None:
            endpoint.unreachable_since = now
        elif endpoint in self.endpoints and all(
            self._given_up(each, now) for each in self.endpoints
        ):
            self.fail(
                EngineError(
                    f"model '{self.model}': no server could be reached for {self._patience_s:.0f} "
                    f"s ({detail}). "
                    "Start it, or correct `endpoint.url`; what was answered is kept, so run again "
                    "then."
                )
            )

    def _given_up(self, endpoint: Endpoint, now: float) -> bool:
        return (
            endpoint.unreachable_since is not None
            and now - endpoint.unreachable_since >= self._patience_s
        )

    def _serve_after_rest(self, endpoint: Endpoint) -> None:
        """Timers may fire early (uvloop's by 1 ms): looked at again while it still rests, or nobody
        would wake those who wait."""
        left_s = endpoint.rests_until - time.monotonic()
        if left_s > 0:
            asyncio.get_running_loop().call_later(left_s, self._serve_after_rest, endpoint)
        else:
            self._serve_waiting()

    def _serve_waiting(self) -> None:
        while self._waiting:
            if self._waiting[0].done():
                self._waiting.popleft()
            elif (endpoint := self._least_in_flight()) is not None:
                endpoint.in_flight += 1
                self._waiting.popleft().set_result(endpoint)
            else:
                return

    def _least_in_flight(self) -> Endpoint | None:
        best = None
        for endpoint in self.endpoints:
            limit = self._limit
            if endpoint.faults:
                limit = 1 if time.monotonic() >= endpoint.rests_until else 0
            if endpoint.in_flight < limit and (best is None or endpoint.in_flight < best.in_flight):
                best = endpoint
        return best
