"""The leases of this process on Deployments: take, renew and release."""

from __future__ import annotations

import asyncio
from functools import partial

from moaa.engines.deployment import Leased
from moaa.errors import MoaaError
from moaa.kubernetes import leases, names, replicas
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import NotFound
from moaa.kubernetes.kinds import DEPLOYMENTS, Object
from moaa.ledger import Ledger
from moaa.progress import Progress


class LeaseHolder:
    """Holds leases under one name. A lease is an object of its own, next to the Deployment."""

    def __init__(
        self,
        cluster: Cluster,
        ledger: Ledger,
        progress: Progress,
        *,
        renew_patience_s: float,
        release_patience_s: float,
    ) -> None:
        """`renew_patience_s`, `release_patience_s`: how long
        to retry while the API server does not answer."""
        self._cluster, self._ledger, self._progress = cluster, ledger, progress
        self._renew_patience_s = renew_patience_s
        self._release_patience_s = release_patience_s
        self._name = names.holder()
        self._held: dict[Leased, leases.Lease] = {}

    async def take(self, leased: Leased) -> None:
        """Lease the model and scale it up. Raises MoaaError."""
        # `release` waits for this task, so a cancelled caller must not stop it halfway.
        self._held[leased] = leases.Lease(self._cluster, DEPLOYMENTS, leased.deployment, self._name)
        leased.lease_task = asyncio.ensure_future(self.renew(leased))
        await asyncio.shield(leased.lease_task)

    async def renew(self, leased: Leased) -> None:
        """Take or renew the lease; scale up again if somebody has scaled down.

        Raises MoaaError; after `Unreachable` and `Conflict` the next try may succeed.
        """
        lease = self._held.get(leased)
        if lease is not None:
            await asyncio.to_thread(self._renew, lease, leased.deployment)

    def _renew(self, lease: leases.Lease, deployment: str) -> None:
        # The lease comes first: who scales down looks at the leases afterwards.
        patience_s = self._renew_patience_s
        scale = partial(replicas.scale, self._cluster, deployment, leased=True, retry_s=patience_s)
        lease.renew(scale, retry_s=patience_s)

    async def release(self, leased: Leased, known: Object | None) -> None:
        """Release the lease; without another lease, scale down.

        `known`: the Deployment as last seen, which saves a request. A failure is only noted: the
        lease runs out by itself.
        """
        if leased.lease_task is not None:
            await asyncio.gather(leased.lease_task, return_exceptions=True)
        lease = self._held.pop(leased, None)
        if lease is None:  # not even tried
            return
        try:
            await asyncio.to_thread(partial(self._release, lease, leased.deployment, known))
        except NotFound:
            pass
        except MoaaError as error:
            self._ledger.events["leases left to run out"] += 1
            self._progress.note(
                f"the lease of {leased.model} was not given back and runs out in "
                f"{leases.LEASE_S:.0f} s: {error}"
            )

    def _release(self, lease: leases.Lease, deployment: str, known: Object | None) -> None:
        """Leases of dead holders count too: only the reaper watches long enough to notice them."""
        patience_s = self._release_patience_s
        lease.release(retry_s=patience_s)
        if lease.others(retry_s=patience_s):
            return
        scale = partial(replicas.scale, self._cluster, deployment, retry_s=patience_s)
        scale(leased=False, known=known)
        if lease.others(retry_s=patience_s):  # another holder has just taken it
            scale(leased=True)
