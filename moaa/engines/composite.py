"""The models of a stage on a cluster: leased from the chart's Deployments, or served in this pod.

The chart knows the recipe's models, but not the weights that a training of the run has just made.
The stage that needs those weights (sample, evaluate) runs on the serve image with its own GPUs and
serves them itself. If no Deployment does, it also serves the model that they were trained from, and
the contestants of an evaluation (`Session.own`).
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from moaa.asking.fleet import Fleet
from moaa.asking.session import Session
from moaa.chat.client import Client
from moaa.concurrency import together
from moaa.engines.diagnosis import no_deployment
from moaa.engines.kubernetes import KubernetesFleet
from moaa.engines.process import ProcessFleet
from moaa.errors import EngineError
from moaa.kubernetes.api import Cluster
from moaa.recipe.rounds import made_by_run
from moaa.recipe.schema import Model


@asynccontextmanager
async def start_on_cluster(
    session: Session, models: Mapping[str, Model], client: Client
) -> AsyncIterator[Fleet]:
    """Yield the fleet of `models` on the cluster of this process. Raises EngineError for a model
    that cannot be served."""
    own = made_by_run(models)
    async with AsyncExitStack() as stack:
        leased = None
        if others := {name: model for name, model in models.items() if name not in own}:
            cluster = await asyncio.to_thread(Cluster.connect, session.runtime.cluster.namespace)
            leased = KubernetesFleet(session, others, client, cluster)
            stack.push_async_callback(leased.close)
            await leased.open()
            own |= leased.absent & (trained_from(own) | set(session.own))
            if missing := leased.absent - own:
                raise EngineError(no_deployment(sorted(missing), cluster.namespace))
        local = None
        if own:
            local = _in_this_pod(session, {name: models[name] for name in own}, client)
            stack.push_async_callback(local.close)
        fleets: dict[str, Fleet | None] = {
            name: local if name in own else leased for name in models
        }
        turns = session.runtime.engines.schedule == "by-turns"
        yield CompositeFleet(
            {name: fleet for name, fleet in fleets.items() if fleet}, at_most=1 if turns else None
        )


def _in_this_pod(session: Session, models: Mapping[str, Model], client: Client) -> ProcessFleet:
    names = ", ".join(sorted(models))
    session.progress.note(f"{names}: served in this pod")
    session.ledger.events.update(f"served in the stage's own pod: {name}" for name in models)
    try:
        return ProcessFleet(session, models, client)
    except EngineError as error:
        raise EngineError(
            f"{names}: weights without a Deployment are served in the stage's own pod, which needs "
            f"the serve image and its GPUs. {error}"
        ) from None


def trained_from(tuned: Collection[str]) -> set[str]:
    """Return the models that these were trained from."""
    return {name.rpartition("+")[0] for name in tuned}


class CompositeFleet:
    """Several fleets as one: each model is started and stopped by its own fleet."""

    def __init__(self, fleets: Mapping[str, Fleet], at_most: int | None = None) -> None:
        """`at_most`: how many models may be up at the same time, whatever each fleet allows: they
        may run on one node."""
        self._fleets = dict(fleets)
        bounds = [
            bound
            for bound in (at_most, *(fleet.capacity for fleet in self._fleets.values()))
            if bound is not None
        ]
        self.capacity = min(bounds) if bounds else None

    async def up(self, models: Collection[str]) -> None:
        """Start these models, each in its own fleet, all fleets at the same time."""
        await together(fleet.up(names) for fleet, names in self._by_fleet(models))

    async def down(self, models: Collection[str]) -> None:
        """Stop these models, each in its own fleet, all fleets at the same time."""
        await asyncio.gather(*(fleet.down(names) for fleet, names in self._by_fleet(models)))

    def _by_fleet(self, models: Collection[str]) -> list[tuple[Fleet, list[str]]]:
        fleets = {id(self._fleets[name]): self._fleets[name] for name in models}
        return [
            (fleet, [name for name in models if self._fleets[name] is fleet])
            for fleet in fleets.values()
        ]
