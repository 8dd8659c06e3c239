"""Deletes pods of leased models that take requests and never answer; their Deployment then makes
new ones."""

from __future__ import annotations

import asyncio

from moaa.engines.deployment import Leased
from moaa.errors import ClusterError
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import PODS
from moaa.ledger import Ledger
from moaa.progress import Progress

GRACE_S = 10
"""A pod that hangs has nothing to finish: its own grace period is for running requests."""


class PodReplacer:
    """Deletes pods that hang, and counts them."""

    def __init__(self, cluster: Cluster, ledger: Ledger, progress: Progress) -> None:
        self._cluster, self._ledger, self._progress = cluster, ledger, progress

    async def replace(self, leased: Leased, pod: str, why: str) -> bool:
        """Delete the pod; return whether that was possible. Without the right, or if the API server
        does not answer, the pod's own liveness probe has to restart it."""
        self._ledger.events["engine pods that answered nothing any more"] += 1
        try:
            if not pod:
                raise ClusterError("its EndpointSlice names no pod")
            await asyncio.to_thread(self._cluster.delete, PODS, pod, grace_s=GRACE_S)
        except ClusterError as error:
            self._ledger.events["engine pods that hung and could not be deleted"] += 1
            self._progress.note(f"{leased.model}: {why}, and its pod cannot be deleted: {error}")
            return False
        leased.restarts += 1
        self._ledger.events["engine restarts"] += 1
        self._progress.note(f"{leased.model}: {why}; pod {pod} was deleted")
        return True
