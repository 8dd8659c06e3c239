"""The servers of one model. The next request goes to the server with the fewest in flight."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from moaa.chat.form import USUAL, Form
from moaa.chat.pooling import Task
from moaa.errors import EngineAway, EngineError
from moaa.recipe.places import Places


@dataclass(eq=False, slots=True)
class Endpoint:
    """One server of a model. `url` is the part before `/chat/completions`; `model` is the server's
    own name for the model."""

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    """The API key. It is sent, never shown."""
    task: Task = "chat"
    """What the server does with a conversation: answer it, score it,
    or return the vector of its end."""
    form: Form = USUAL
    """Which of the usual fields its requests have."""
    kept: bool = False
    """Whether it is one of our engines: its keeper waits for `lost` and starts it again."""
    places: Places | None = None
    """How many requests it gets at the same time. None: as many as its pool says."""
    in_flight: int = 0
    in_doubt: bool = False
    """Whether it is in doubt: it gets no requests until it answers a check (see `health`)."""
    rests_until: float = 0.0
    """It asked for no requests until this time (the loop's clock)."""
    answered_at: float = 0.0
    """When it last answered anything (the loop's clock)."""
    lost: asyncio.Event = field(default_factory=asyncio.Event, repr=False)
    """Set when it has not answered for too long. `why_lost` has the reason in words."""
    why_lost: str = ""

    @property
    def shown(self) -> str:
        """Its address without user, password and query, which may be secret."""
        address = urlsplit(self.url)
        return f"{address.scheme}://{address.netloc.rpartition('@')[2]}{address.path}"


class Pool:
    """The endpoints of one model, each with at most `in_flight` requests unless it has its own
    limit. Callers that wait are served in order."""

    def __init__(self, model: str, in_flight: int) -> None:
        self.model = model
        self.endpoints: list[Endpoint] = []
        self.failure: EngineError | None = None
        self._in_flight = in_flight
        self._limits: dict[Endpoint, int] = {}
        self._waiting: deque[asyncio.Future[Endpoint]] = deque()

    @property
    def in_flight(self) -> int:
        """Requests in flight at all endpoints."""
        return sum(endpoint.in_flight for endpoint in self.endpoints)

    def limit(self, endpoint: Endpoint) -> int:
        """The most requests in flight at this endpoint now."""
        first = self._in_flight if endpoint.places is None else endpoint.places.first
        return self._limits.get(endpoint, first)

    def set_limit(self, endpoint: Endpoint, limit: int) -> None:
        """Set the most requests in flight at this endpoint; requests in flight go on."""
        self._limits[endpoint] = limit
        self._serve_waiting()

    @property
    def most(self) -> int:
        """The most requests that can be in flight at all endpoints."""
        return sum(
            self._in_flight if endpoint.places is None else endpoint.places.most
            for endpoint in self.endpoints
        )

    def add(self, endpoint: Endpoint) -> None:
        """Send requests to this endpoint from now on."""
        self.endpoints.append(endpoint)
        self._serve_waiting()

    def remove(self, endpoint: Endpoint) -> None:
        """Send it no more requests; those in flight go on. A second call does nothing."""
        if endpoint in self.endpoints:
            self.endpoints.remove(endpoint)
        self._limits.pop(endpoint, None)

    def fail(self, error: EngineError) -> None:
        """Give up the model: all waiting calls and all later calls get the error."""
        self.failure = error
        while self._waiting:
            waiter = self._waiting.popleft()
            if not waiter.done():
                waiter.set_exception(error)

    async def acquire(self) -> Endpoint:
        """Wait for a place, and return its endpoint: the one with the fewest requests in flight.

        `release` frees the place.
        """
        if self.failure is not None:
            raise self.failure
        if not self._waiting and (endpoint := self._least_in_flight()) is not None:
            endpoint.in_flight += 1
            return endpoint
        waiter: asyncio.Future[Endpoint] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # It got its place at the same moment at which it was cancelled.
                self.release(waiter.result())
            raise

    def release(self, endpoint: Endpoint) -> None:
        """Free a place that `acquire` returned."""
        endpoint.in_flight -= 1
        self._serve_waiting()

    def doubt(self, endpoint: Endpoint) -> None:
        """Send it no requests until it has answered."""
        endpoint.in_doubt = True

    def answered(self, endpoint: Endpoint) -> None:
        """Take an endpoint that has answered out of doubt."""
        endpoint.answered_at = asyncio.get_running_loop().time()
        if endpoint.in_doubt:
            endpoint.in_doubt = False
            self._serve_waiting()

    def rest(self, endpoint: Endpoint, for_s: float) -> None:
        """Send it no requests for `for_s` seconds: it asked for that."""
        loop = asyncio.get_running_loop()
        endpoint.rests_until = max(endpoint.rests_until, loop.time() + for_s)
        loop.call_at(endpoint.rests_until, self._serve_after_rest, endpoint)

    def lose(self, endpoint: Endpoint, why: str) -> None:
        """Give up an endpoint that has not answered for too long. If it was the last one, the pool
        fails, unless the endpoint has a keeper."""
        endpoint.why_lost = why
        endpoint.lost.set()
        if not endpoint.kept:
            self.remove(endpoint)
            if not self.endpoints:
                self.fail(
                    EngineAway(
                        f"model '{self.model}': {why}. Start it again, or correct `endpoint.url`, "
                        "and run again: answers are kept."
                    )
                )

    def _serve_after_rest(self, endpoint: Endpoint) -> None:
        """Serve the waiting calls when the rest is over. Timers may fire early (uvloop's by 1 ms),
        so it checks again."""
        loop = asyncio.get_running_loop()
        if endpoint.rests_until > loop.time():
            loop.call_at(endpoint.rests_until, self._serve_after_rest, endpoint)
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
        now = asyncio.get_running_loop().time()
        best = None
        for endpoint in self.endpoints:
            if endpoint.in_doubt or endpoint.rests_until > now:
                continue
            if endpoint.in_flight < self.limit(endpoint) and (
                best is None or endpoint.in_flight < best.in_flight
            ):
                best = endpoint
        return best
