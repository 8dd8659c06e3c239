"""The leases of this process on Deployments: take, renew and release."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from functools import partial

from moaa.engines.deployment import Leased
from moaa.errors import MoaaError
from moaa.kubernetes import leases, names, replicas
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import NotFound, Unreachable
from moaa.kubernetes.kinds import DEPLOYMENTS, Object
from moaa.kubernetes.transport import OUTAGE_S
from moaa.ledger import Ledger
from moaa.progress import Progress


@dataclass(frozen=True, slots=True)
class Timing:
    """How often a fleet looks and how long it waits, in seconds."""

    look_every_s: float = 1.0
    """For time limits and the seconds in notes. Changes on the cluster are handled at once."""
    events_every_s: float = 3.0
    renew_every_s: float = leases.RENEW_EVERY_S
    """Also how long one renewal is retried while the API server does not answer."""
    release_patience_s: float = 5.0
    """How long a release is retried."""
    outage_s: float = OUTAGE_S
    """How long the API server may be away when a lease is taken or the namespace is first read."""


class LeaseHolder:
    """Holds leases under one name. A lease is an object of its own, next to the Deployment."""

    def __init__(
        self, cluster: Cluster, ledger: Ledger, progress: Progress, timing: Timing
    ) -> None:
        self._cluster, self._ledger, self._progress = cluster, ledger, progress
        self._timing = timing
        self._name = names.holder()
        self._held: dict[Leased, leases.Lease] = {}

    async def take(self, leased: Leased) -> None:
        """Lease the model and scale it up. Raises MoaaError."""
        self._held[leased] = leases.Lease(self._cluster, DEPLOYMENTS, leased.deployment, self._name)
        give_up_at = time.monotonic() + self._timing.outage_s
        while True:
            # `release` waits for this task, so a cancelled caller must not stop it halfway. It is
            # short: a stage that must end does not wait for the end of an outage.
            leased.lease_task = asyncio.ensure_future(self.renew(leased))
            try:
                return await asyncio.shield(leased.lease_task)
            except Unreachable as error:
                if time.monotonic() >= give_up_at:
                    raise
                self._progress.note(f"the lease of {leased.model} cannot be taken yet: {error}")

    async def renew(self, leased: Leased) -> None:
        """Take or renew the lease; scale up again if somebody has scaled down.

        Raises MoaaError; after `Unreachable` and `Conflict` the next try may succeed.
        """
        lease = self._held.get(leased)
        if lease is not None:
            await asyncio.to_thread(self._renew, lease, leased.deployment)

    def _renew(self, lease: leases.Lease, deployment: str) -> None:
        # The lease comes first: who scales down looks at the leases afterwards.
        patience_s = self._timing.renew_every_s
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
        patience_s = self._timing.release_patience_s
        lease.release(retry_s=patience_s)
        if lease.others(retry_s=patience_s):
            return
        scale = partial(replicas.scale, self._cluster, deployment, retry_s=patience_s)
        scale(leased=False, known=known)
        if lease.others(retry_s=patience_s):  # another holder has just taken it
            scale(leased=True)
