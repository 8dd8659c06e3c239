"""What a gateway does on the cluster: it finds replicas, wakes models, and follows promotions."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

from moaa.gateway.backend import Backend
from moaa.gateway.config import GatewayConfig
from moaa.gateway.discovery import Discovery
from moaa.gateway.slots import Slot
from moaa.gateway.traffic_split import TrafficSplit, WatchedSlots
from moaa.gateway.waker import Waker, WakeTimes
from moaa.kubernetes.api import Cluster


class ClusterLink:
    """The watches and leases of one gateway."""

    def __init__(
        self,
        config: GatewayConfig,
        backends: Mapping[str, Backend],
        promoted: Mapping[str, TrafficSplit],
        cluster: Cluster,
    ) -> None:
        """`backends`: by the models' names. `promoted`: by theirs."""
        self._config, self._promoted = config, promoted
        self._services = {
            name: model.service for name, model in config.models.items() if model.service
        }
        by_service = {service: backends[name] for name, service in self._services.items()}
        self.discovery = Discovery(cluster, by_service)
        self.waker: Waker | None = None
        if (wake := config.cluster.wake) is not None:
            self.waker = Waker(
                cluster,
                by_service,
                self.discovery.deployment,
                wake.holder,
                WakeTimes(wake.idle_s, wake.hold_s),
            )
        self._watches = {
            name: WatchedSlots(cluster, each.config_map, promoted[name], socket.gethostname())
            for name, each in config.promoted.items()
            if each.config_map
        }
        for name, watch in self._watches.items():
            promoted[name].on_roll_back.append(watch.roll_back)

    @classmethod
    def of(
        cls,
        config: GatewayConfig,
        backends: Mapping[str, Backend],
        promoted: Mapping[str, TrafficSplit],
        cluster: Cluster | None = None,
    ) -> ClusterLink | None:
        """Return what this configuration needs of the cluster; None if it needs nothing.

        Raises ClusterError if there is no cluster.
        """
        services = any(model.service for model in config.models.values())
        if not services and not any(each.config_map for each in config.promoted.values()):
            return None
        cluster = cluster or Cluster.connect(config.cluster.namespace)
        return cls(config, backends, promoted, cluster)

    async def open(self) -> None:
        """Read the namespace and start to watch it. Raises ClusterError."""
        await asyncio.gather(
            self.discovery.open(), *(each.open() for each in self._watches.values())
        )
        if self.waker is not None:
            await self.waker.open()

    def background(self) -> list[Callable[[], Coroutine[Any, Any, None]]]:
        """Return the tasks that run while the gateway runs."""
        return [self._renew, *(each.run for each in self._watches.values())]

    async def _renew(self) -> None:
        """Renew leases, until cancelled."""
        if self.waker is None:
            return
        while True:
            self.waker.kept = self._slots(lambda slot: bool(slot.share and slot.source))
            self.waker.empty = self._slots(lambda slot: not slot.source)
            self.waker.look()
            await asyncio.sleep(self.waker.times.look_every_s)

    async def close(self) -> None:
        """Stop watching, and wait for writes in progress."""
        self.discovery.close()
        for watch in self._watches.values():
            watch.close()
            await watch.written()
        if self.waker is not None:
            await self.waker.close()

    def service_of(self, model: str) -> str | None:
        """Return the Service of a model, which is also the name of its Deployment."""
        return self._services.get(model)

    def _slots(self, which: Callable[[Slot], bool]) -> set[str]:
        """Return the Deployments of these slots, if the gateway keeps the slots
        of their models up."""
        return {
            service
            for name, each in self._config.promoted.items()
            if each.stays_up
            for slot, model in each.slots.items()
            if which(self._promoted[name].slots.slots[slot])
            if (service := self._services.get(model))
        }
