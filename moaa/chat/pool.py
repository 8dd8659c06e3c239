"""The servers of one model. The next request goes to the one with the fewest in flight."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from dataclasses import dataclass, field

from moaa.errors import EngineError

REST_S = 0.5
"""How long a server gets no requests after a fault: twice as long after each further fault in a
row, at most `MAX_REST_S`."""
MAX_REST_S = 30.0


@dataclass(eq=False, slots=True)
class Endpoint:
    """One server of a model. `url` ends before `/chat/completions`; `model` is the server's own
    name for the model."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    """The API key: sent, never shown."""
    in_flight: int = 0
    faults: int = 0
    """Failures in a row."""
    rests_until: float = 0.0
    """It gets no requests until this time.monotonic()."""
    unreachable_since: float | None = None


class Pool:
    """The endpoints of one model, at most `in_flight` requests each. Waiting callers are served in
    order.

    A server that fails has the fewest requests in flight, so every call would go to it. Therefore
    it rests, and then gets one request at a time until it answers. If no server can be reached for
    `patience_s`, the pool fails.
    """

    def __init__(
        self, model: str, in_flight: int, patience_s: float = 600.0, rest_s: float = REST_S
    ) -> None:
        self.model = model
        self.endpoints: list[Endpoint] = []
        self._limit = in_flight
        self._patience_s = patience_s
        self._rest_s = rest_s
        self._waiting: deque[asyncio.Future[Endpoint]] = deque()
        self._failure: EngineError | None = None

    @property
    def in_flight(self) -> int:
        """Requests in flight at all endpoints."""
        return sum(endpoint.in_flight for endpoint in self.endpoints)

    def add(self, endpoint: Endpoint) -> None:
        """Send requests to this endpoint from now on."""
        self.endpoints.append(endpoint)
        self._serve_waiting()

    def remove(self, endpoint: Endpoint) -> None:
        """Send no more requests to it; those in flight continue. A second call does nothing."""
        if endpoint in self.endpoints:
            self.endpoints.remove(endpoint)

    def fail(self, error: EngineError) -> None:
        """Give up the model: every call that waits, and every later one, gets the error."""
        self._failure = error
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    async def acquire(self) -> Endpoint:
        """Wait for a place, and return its endpoint: the one with the fewest requests in flight.

        `release` frees the place.
        """
        if self._failure is not None:
            raise self._failure
        if not self._waiting and (endpoint := self._least_in_flight()) is not None:
            endpoint.in_flight += 1
            return endpoint
        waiter: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It got its place at the same moment as it was cancelled.
                self.release(waiter.result())
            raise

    def release(self, endpoint: Endpoint) -> None:
        """Free a place that `acquire` returned."""
        endpoint.in_flight -= 1
        self._serve_waiting()

    def answered(self, endpoint: Endpoint) -> None:
        """The endpoint has answered: it does not rest any more."""
        if endpoint.faults:
            endpoint.faults, endpoint.rests_until, endpoint.unreachable_since = 0, 0.0, None
            self._serve_waiting()

    def failed(
        self, endpoint: Endpoint, detail: str, *, after_s: float = 0.0, reached: bool = True
    ) -> None:
        """The endpoint has failed: it rests, at least the `after_s` that it asked for. Failures
        during a rest count as one."""
        now = time.monotonic()
        if now >= endpoint.rests_until:
            rest_s = after_s + min(MAX_REST_S, self._rest_s * 2 ** min(endpoint.faults, 16))
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
            each.unreachable_since is not None and now - each.unreachable_since >= self._patience_s
            for each in self.endpoints
        ):
            self.fail(
                EngineError(
                    f"model '{self.model}': no server could be reached for {self._patience_s:.0f} "
                    f"s ({detail}). Start it, or correct `endpoint.url`, and run again: answers "
                    "are kept."
                )
            )

    def _serve_after_rest(self, endpoint: Endpoint) -> None:
        """Serve the calls that wait when the rest is over. Timers may fire early (uvloop's by
        1 ms), so it checks again."""
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
