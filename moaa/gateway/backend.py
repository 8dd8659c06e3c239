"""The replicas of one model: the next request goes to the one with the fewest in flight.

The replicas are those of the file, or of discovery (`set_replicas`). One that cannot be reached is
in doubt: it gets requests only if there is no other one, until a check (`moaa.gateway.checks`) or a
request has got an answer from it.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final, Literal

from yarl import URL

from moaa.chat.pool import Endpoint, Pool
from moaa.chat.proxies import proxy_for
from moaa.gateway.wire import ApiError

State = Literal["ready", "asleep", "down"]
"""asleep: it has no replica, and may be woken. down: none of its replicas answers."""

UNLIMITED: Final = 1 << 30
SLACK: Final = 8
"""So many more requests than the least busy replica has a conversation's own one may have."""


@dataclass(eq=False, slots=True)
class Replica:
    """One server of a model. `url` ends before `/chat/completions`."""

    url: str
    headers: dict[str, str]
    proxy: URL | None
    endpoint: Endpoint
    """Its place in the pool: what is in flight, and whether it is in doubt."""
    _urls: dict[str, URL] = field(default_factory=dict)

    def at(self, path: str) -> URL:
        """The address of this path (`/chat/completions`) at the replica."""
        if path not in self._urls:
            self._urls[path] = URL(self.url.rstrip("/") + path)
        return self._urls[path]


class Backend:
    """The replicas of one model now. `served_name`: the model's name at its servers."""

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
        """Whether it has no replicas because nobody needed it (set by discovery)."""
        self.replicas: dict[str, Replica] = {}
        """By address."""
        self._key = key
        self._turn = 0
        self.set_replicas(urls)

    @property
    def state(self) -> State:
        if any(not replica.endpoint.in_doubt for replica in self.replicas.values()):
            return "ready"
        return "asleep" if self.asleep and not self.replicas else "down"

    @property
    def in_flight(self) -> int:
        """Requests in flight at its replicas."""
        return self.pool.in_flight

    def set_replicas(self, urls: Iterable[str]) -> None:
        """Send requests to the replicas at these addresses from now on; those in flight go on."""
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
        """Lend the replica with the fewest requests in flight, and count one more at it meanwhile.

        Requests with the same `affinity` go to the same replica while it is not much busier than
        the others: it has their prefix in its cache. Those in `without` have failed already. Raises
        ApiError: 503 if there is none, 429 if all have as many requests as they may.
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
                f"All servers of '{self.name}' have as many requests as they may: try again soon.",
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
        """The error if no replica can be asked."""
        return ApiError(
            503,
            f"No server of '{self.name}' is up just now: try again soon.",
            "model_asleep" if self.state == "asleep" else "model_not_up",
            after_s=2,
        )

    def failed(self, replica: Replica) -> None:
        """The replica could not be reached, or broke off: it is asked whether it still answers."""
        self.pool.doubt(replica.endpoint)

    def answered(self, replica: Replica) -> None:
        """The replica has answered: there is no doubt any more."""
        endpoint = replica.endpoint
        if endpoint.in_doubt:
            self.pool.answered(endpoint)
        else:
            endpoint.answered_at = asyncio.get_running_loop().time()


def _weight(affinity: str, url: str) -> bytes:
    """The highest of these says whose conversation it is (rendezvous hashing): few conversations
    move when a replica comes or goes."""
    return hashlib.blake2b(f"{affinity}\0{url}".encode(), digest_size=8).digest()
