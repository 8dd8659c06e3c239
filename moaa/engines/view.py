"""A live copy of a namespace's objects for some models: Deployments, pods, addresses, events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress

from moaa.engines.deployment import addresses
from moaa.errors import ClusterError
from moaa.kubernetes import names, pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, PODS, SLICES, Object
from moaa.kubernetes.mirror import Mirror, Mirrors


class ClusterView(Mirrors):
    """The objects of these models, kept up to date by watches."""

    def __init__(
        self,
        cluster: Cluster,
        dns: Iterable[str],
        changed: Callable[[], None],
        patience_s: float = 0.0,
    ) -> None:
        """`dns`: the models' names in labels. `changed` is called from a thread. `patience_s`: how
        long `open` waits for an API server that does not answer."""
        self._cluster = cluster
        labels = f"{names.MODEL} in ({','.join(dns)})"
        self._deployments, self._pods, self._slices = watched = [
            Mirror(cluster, kind, labels, changed) for kind in (DEPLOYMENTS, PODS, SLICES)
        ]
        super().__init__(*watched, patience_s=patience_s)
        self.events: dict[str, str] = {}
        """For each pod that is being created: the message of its newest event."""

    def deployment(self, name: str) -> Object | None:
        """The Deployment of this name, as last seen."""
        return self._deployments.objects.get(name)

    def deployments_of(self, dns: str) -> list[str]:
        """The names of the Deployments that serve this model."""
        return [each["metadata"]["name"] for each in _labelled(self._deployments, dns)]

    def pods_of(self, model: str) -> list[Object]:
        """The model's pods."""
        return _labelled(self._pods, names.dns(model))

    def addresses_of(self, model: str) -> dict[str, str]:
        """The base addresses of the model's pods that are ready, and the pods' names."""
        return addresses(_labelled(self._slices, names.dns(model)))

    async def read_events(self, model: str) -> None:
        """Read the events of the model's pods that are being created: only events show why that
        takes long (image, volumes)."""
        for pod in self.pods_of(model):
            if pods.waits_for(pod, time.time()) == pods.CREATING:
                name = pod["metadata"]["name"]
                with suppress(ClusterError):
                    found = await asyncio.to_thread(self._cluster.events, name)
                    message = found[-1].get("message", "") if found else ""
                    self.events[name] = " ".join(message.split())


def _labelled(mirror: Mirror, dns: str) -> list[Object]:
    return [
        each
        for each in mirror.objects.values()
        if each["metadata"].get("labels", {}).get(names.MODEL) == dns
    ]
