"""The replicas of models on the cluster: read from EndpointSlices, and watched.

Requests go to the pods' own addresses: through a Service, each connection would stay at one pod.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from moaa.engines.deployment import addresses
from moaa.gateway.backend import Backend
from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, SLICES, Object
from moaa.kubernetes.mirror import Mirror, Mirrors
from moaa.progress.messages import log

SERVICE: Final = "kubernetes.io/service-name"
"""The label of an EndpointSlice with the name of its Service."""
ENGINES: Final = f"{names.PART_OF}={names.OURS},{names.MODEL}"


class Discovery(Mirrors):
    """Keeps the backends' replicas equal to the pods that are ready."""

    def __init__(self, cluster: Cluster, backends: Mapping[str, Backend]) -> None:
        """`backends`: by the name of their Service. A Deployment of the same name shows whether
        they are asleep: moaa-serving gives both the same name."""
        self._backends = backends
        self._loop = asyncio.get_running_loop()
        self._said = ""
        wanted = f"{SERVICE} in ({','.join(sorted(backends))})"
        self._slices = Mirror(cluster, SLICES, wanted, self._wake)
        self._deployments = Mirror(cluster, DEPLOYMENTS, ENGINES, self._wake)
        super().__init__(self._slices, self._deployments)

    async def open(self) -> None:
        """Read the namespace and start to watch it. Raises ClusterError if the cluster cannot be
        reached or a right is missing."""
        await super().open()
        self._apply()

    def deployment(self, service: str) -> Object | None:
        """The Deployment behind a Service, as last seen."""
        return self._deployments.objects.get(service)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and a mirror's thread still runs
            self._loop.call_soon_threadsafe(self._apply)

    def _apply(self) -> None:
        found: dict[str, list[Object]] = {}
        for each in list(self._slices.objects.values()):
            found.setdefault(each["metadata"].get("labels", {}).get(SERVICE, ""), []).append(each)
        for service, backend in self._backends.items():
            backend.set_replicas(addresses(found.get(service, [])))
            backend.asleep = sleeps(self.deployment(service))
        if (error := self.error) is not None and str(error) != self._said:
            self._said = str(error)
            log.error(f"gateway: the cluster is no longer watched: {error}")


def sleeps(deployment: Object | None) -> bool:
    """Return whether a Deployment is up only while somebody holds a lease on it."""
    if deployment is None:
        return False
    annotations = deployment["metadata"].get("annotations") or {}
    return annotations.get(names.IDLE_REPLICAS) == "0"


def start_s(deployment: Object | None) -> float:
    """Return how long a start may take at most, in seconds: the Deployment's startup probe."""
    pod = (deployment or {}).get("spec", {}).get("template", {}).get("spec", {})
    probes = [each["startupProbe"] for each in pod.get("containers", []) if "startupProbe" in each]
    return max(
        (float(p.get("failureThreshold", 3) * p.get("periodSeconds", 10)) for p in probes),
        default=600.0,
    )
