"""The replicas of one model: the next request goes to the one with the fewest in flight.

The replicas come from the file, or from discovery (`set_replicas`). A replica that cannot be
reached is in doubt. It gets requests only if no other replica is left, until it answers a request
or a check (`moaa.gateway.checks`).
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from yarl import URL

from moaa.chat.http import without_key
from moaa.chat.pool import Endpoint, Pool
from moaa.chat.proxies import proxy_for
from moaa.gateway.wire import ApiError, of_engine

State = Literal["ready", "asleep", "down"]
"""asleep: it has no replica, and can be woken. down: none of its replicas answers."""

UNLIMITED: Final = 1 << 30
SLACK: Final = 8
"""How many more requests than the least busy replica a conversation's own replica may have."""


@dataclass(eq=False, slots=True)
class Replica:
    """One server of a model. `url` is the part before `/chat/completions`."""

    url: str
    headers: dict[str, str]
    proxy: URL | None
    endpoint: Endpoint
    """Its entry in the pool: the requests in flight, and whether it is in doubt."""
    _urls: dict[str, URL] = field(default_factory=dict)

    def at(self, path: str) -> URL:
        """Return the address of this path (`/chat/completions`) at the replica."""
        if path not in self._urls:
            self._urls[path] = URL(self.url.rstrip("/") + path)
        return self._urls[path]


class Backend:
    """The current replicas of one model. `served_name`: the model's name at its servers."""

    def __init__(
        self,
        name: str,
        urls: Iterable[str] = (),
        *,
        served_name: str | None = None,
        key: str | None = None,
        in_flight: int | None = None,
        revision: str | None = None,
    ) -> None:
        self.name = name
        self.served_name = served_name or name
        self.revision = revision
        self.pool = Pool(name, in_flight or UNLIMITED)
        self.asleep = False
        """Whether it has no replicas because it is not in use (set by discovery)."""
        self.replicas: dict[str, Replica] = {}
        """By address."""
        self._key = key
        self._turn = 0
        self.set_replicas(urls)

    @property
    def state(self) -> State:
        """ready: a replica answers. Else asleep or down, see `State`."""
        if any(not replica.endpoint.in_doubt for replica in self.replicas.values()):
            return "ready"
        return "asleep" if self.asleep and not self.replicas else "down"

    @property
    def in_flight(self) -> int:
        """The number of requests in flight at its replicas."""
        return self.pool.in_flight

    def set_replicas(self, urls: Iterable[str]) -> None:
        """Send requests to these addresses from now on; requests in flight continue."""
        wanted = list(dict.fromkeys(urls))
        for url in [url for url in self.replicas if url not in wanted]:
            self.pool.remove(self.replicas.pop(url).endpoint)
        for url in wanted:
            if url not in self.replicas:
                endpoint = Endpoint(url, self.served_name, self._key)
                headers = {"Authorization": f"Bearer {self._key.strip()}"} if self._key else {}
                self.replicas[url] = Replica(url, headers, proxy_for(URL(url)), endpoint)
                self.pool.add(endpoint)

    @contextmanager
    def replica(
        self, affinity: str | None = None, without: Collection[Replica] = ()
    ) -> Iterator[Replica]:
        """Choose the replica with the fewest requests in flight, and count one more while in use.

        Requests with the same `affinity` go to the same replica while it is not much busier than
        the others: their prefix is in its cache. `without`: replicas that have failed already.
        Raises ApiError: 503 if no replica is left, 429 if all have the most requests allowed.
        """
        chosen = self._choose(affinity, without)
        chosen.endpoint.in_flight += 1
        try:
            yield chosen
        finally:
            self.pool.release(chosen.endpoint)

    def _choose(self, affinity: str | None, without: Collection[Replica]) -> Replica:
        left = [each for each in self.replicas.values() if each not in without]
        if not left:
            raise self.not_up()
        free = [r for r in left if r.endpoint.in_flight < self.pool.limit(r.endpoint)]
        if not free:
            raise ApiError(
                429,
                f"All servers of '{self.name}' have the most requests allowed: try again soon.",
                "engine_overloaded",
                after_s=1,
            )
        best = [replica for replica in free if not replica.endpoint.in_doubt] or free
        least = min(replica.endpoint.in_flight for replica in best)
        if affinity is not None and len(best) > 1:
            own = max(best, key=lambda replica: _weight(affinity, replica.url))
            if own.endpoint.in_flight <= least + SLACK:
                return own
        equal = [replica for replica in best if replica.endpoint.in_flight == least]
        self._turn += 1
        return equal[self._turn % len(equal)]

    def not_up(self) -> ApiError:
        """Return the error for a request that no replica can answer."""
        return ApiError(
            503,
            f"No server of '{self.name}' is up now: try again soon.",
            "model_asleep" if self.state == "asleep" else "model_not_up",
            after_s=2,
        )

    def refusal(self, status: int, body: bytes, after_s: float) -> ApiError:
        """Return what an answer of this status means to the client, who never sees the servers'
        key."""
        return of_engine(status, without_key(status, body, self._key), self.name, after_s)

    def hidden(self, said: bytes) -> bytes:
        """Return what a server said in an answer or a stream. If there may be an error in it, the
        servers' key is taken out."""
        return without_key(200, said, self._key) if b'"error"' in said else said

    def failed(self, replica: Replica) -> None:
        """Put a replica in doubt that could not be reached, or that broke off its answer."""
        self.pool.doubt(replica.endpoint)

    def answered(self, replica: Replica) -> None:
        """Take a replica that has answered out of doubt."""
        endpoint = replica.endpoint
        if endpoint.in_doubt:
            self.pool.answered(endpoint)
        else:
            endpoint.answered_at = asyncio.get_running_loop().time()


def _weight(affinity: str, url: str) -> bytes:
    """Rank a replica for a conversation: the highest wins (rendezvous hashing). Few conversations
    move when a replica is added or removed."""
    return hashlib.blake2b(f"{affinity}\0{url}".encode(), digest_size=8).digest()
