"""Which replicas one request has tried, and whether it may try another one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from moaa.gateway.backend import Backend, Replica
from moaa.gateway.wire import ApiError

if TYPE_CHECKING:
    from moaa.gateway.state import Gateway

MOST_RETRIES: Final = 3
MOST_WORKED: Final = 2
"""After this many broken engines the request is given up: it may be what breaks them."""


class Lost(Exception):
    """This replica gave nothing; another one may. `error`: what the client gets if there is no
    other. `doubtful`: the replica may be down. `sent`: it may have worked on the request."""

    def __init__(self, error: ApiError, *, doubtful: bool, sent: bool) -> None:
        super().__init__(str(error))
        self.error, self.doubtful, self.sent = error, doubtful, sent


class Tries:
    """The tries of one request at the replicas of a model."""

    def __init__(self, gateway: Gateway, backend: Backend) -> None:
        self.without: list[Replica] = []
        """The replicas that the next try skips."""
        self._gateway, self._backend = gateway, backend
        self._made = self._worked = 0

    def lost(self, replica: Replica, lost: Lost) -> None:
        """Count a try that gave nothing. Raises its error if no other try is left."""
        if lost.doubtful:
            self._backend.failed(replica)
            self._gateway.checks.check(self._backend, replica)
        self.without.append(replica)
        self._made += 1
        self._worked += lost.sent
        left = any(each not in self.without for each in self._backend.replicas.values())
        if not left and self._made == 1 and lost.doubtful:
            # The only server: it closed an old connection, or was too slow to accept a new one
            # because many came at once.
            self.without.clear()
            left = True
        if not left or self._worked == MOST_WORKED or self._made > MOST_RETRIES:
            raise lost.error from None
        error = lost.error
        self._gateway.metrics.retries.add(self._backend.name, error.code or str(error.status))
