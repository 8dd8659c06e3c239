"""The leases of this process on Deployments: taken, renewed and released."""

from __future__ import annotations

import asyncio
import time
from functools import partial

from moaa.engines.deployment import Leased
from moaa.errors import MoaaError
from moaa.kubernetes import leases, names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import NotFound
from moaa.kubernetes.kinds import DEPLOYMENTS, Object
from moaa.ledger import Ledger
from moaa.progress import Progress


class LeaseHolder:
    """Holds leases under one name. A lease is an annotation of the Deployment."""

    def __init__(
        self,
        cluster: Cluster,
        ledger: Ledger,
        progress: Progress,
        *,
        renew_patience_s: float,
        release_patience_s: float,
    ) -> None:
        """The patiences: for how long requests to an API server that is away are tried again."""
        self._cluster, self._ledger, self._progress = cluster, ledger, progress
        self._renew_patience_s = renew_patience_s
        self._release_patience_s = release_patience_s
        self._name = names.holder()

    async def take(self, leased: Leased) -> None:
        """Lease it and scale it up. Raises MoaaError."""
        # `release` waits for this task, so a cancelled caller must not cancel it half done.
        leased.lease_task = asyncio.ensure_future(self.renew(leased))
        await asyncio.shield(leased.lease_task)

    async def renew(self, leased: Leased) -> None:
        """A lease, new or renewed; it also scales up again if somebody has scaled down.

        Raises MoaaError; `Unreachable` and `Conflict` may succeed the next time.
        """
        await asyncio.to_thread(self._update, leased)

    def _update(self, leased: Leased) -> None:
        def change(found: Object) -> Object | None:
            if leased.closed:
                return None
            now = time.time()
            annotations = found["metadata"].get("annotations") or {}
            return leases.patch(found, leases.add(annotations, self._name, now), now)

        self._cluster.update(DEPLOYMENTS, leased.deployment, change, retry_s=self._renew_patience_s)

    async def release(self, leased: Leased, known: Object | None) -> None:
        """Release the lease; without another lease, scale down.

        `known`: the Deployment as last seen, which saves a request. A failure is only noted: the
        lease expires.
        """

        def change(found: Object) -> Object:
            now = time.time()
            annotations = found["metadata"].get("annotations") or {}
            return leases.patch(found, leases.release(annotations, self._name, now), now)

        if leased.lease_task is not None:
            await asyncio.gather(leased.lease_task, return_exceptions=True)
        release = partial(self._cluster.update, DEPLOYMENTS, leased.deployment, change, known=known)
        try:
            await asyncio.to_thread(release, retry_s=self._release_patience_s)
        except NotFound:
            pass
        except MoaaError as error:
            self._ledger.events["leases left to run out"] += 1
            self._progress.note(
                f"the lease of {leased.model} was not given back and runs out in "
                f"{leases.LEASE_S:.0f} s: {error}"
            )
