"""The models of a stage on a cluster: leased from the chart's Deployments, or served in this very
pod.

The chart knows the recipe's models. It cannot know what a training of the run has just made: the
stage that needs those weights (sample, evaluate) runs on the serve image with GPUs of its own, and
serves them itself, with the model that they were trained from beside them where no Deployment
serves that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING

from moaa.chat.client import Client
from moaa.engines.concurrency import together
from moaa.engines.kubernetes import KubernetesFleet, remedy
from moaa.engines.process import ProcessFleet
from moaa.errors import EngineError
from moaa.kubernetes.api import Cluster
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Model, Runtime
from moaa.store import Store

if TYPE_CHECKING:
    from moaa.engines import Fleet


@asynccontextmanager
async def serving(
    models: Mapping[str, Model],
    runtime: Runtime,
    client: Client,
    store: Store,
    ledger: Ledger,
    progress: Progress,
) -> AsyncIterator[Fleet]:
    """The fleet of `models` on the cluster of this process. Raises EngineError for those that
    nobody can serve."""
    own = made_here(models)
    async with AsyncExitStack() as leaving:
        leased = None
        if others := {name: model for name, model in models.items() if name not in own}:
            cluster = await asyncio.to_thread(Cluster.connect, runtime.cluster.namespace)
            leased = KubernetesFleet(others, runtime, client, cluster, ledger, progress)
            leaving.push_async_callback(leased.close)
            await leased.open()
            own |= leased.absent & trained_from(own)
            if missing := leased.absent - own:
                raise EngineError(remedy(sorted(missing), cluster.namespace))
        mine = None
        if own:
            progress.note(f"{', '.join(sorted(own))}: served in this pod")
            ledger.events.update(f"served in the stage's own pod: {name}" for name in own)
            try:
                mine = ProcessFleet(
                    {name: models[name] for name in own}, runtime, client, store, ledger, progress
                )
            except EngineError as error:
                raise EngineError(
                    f"{', '.join(sorted(own))}: what a training made is served in the stage's own "
                    "pod, which needs the serve "
                    f"image and its GPUs. {error}"
                ) from None
            leaving.push_async_callback(mine.close)
        fleets: dict[str, Fleet | None] = {name: mine if name in own else leased for name in models}
        turns = runtime.engines.schedule == "by-turns"
        yield Mixed(
            {name: fleet for name, fleet in fleets.items() if fleet}, at_most=1 if turns else None
        )


def made_here(models: Mapping[str, Model]) -> set[str]:
    """Models whose weights a stage of a run made (`llama+sft`, an artifact on S3)."""
    return {
        name for name, model in models.items() if "+" in name and model.source.startswith("s3://")
    }


def trained_from(tuned: Collection[str]) -> set[str]:
    """The models that these were trained from."""
    return {name.rpartition("+")[0] for name in tuned}


class Mixed:
    """Several fleets as one: each model is started and stopped by its own."""

    def __init__(self, fleets: Mapping[str, Fleet], at_most: int | None = None) -> None:
        """`at_most` models up at once, whatever each fleet could hold: they may be neighbours on
        one node."""
        self._fleets = dict(fleets)
        bounds = [
            bound
            for bound in (at_most, *(fleet.capacity for fleet in self._fleets.values()))
            if bound is not None
        ]
        self.capacity = min(bounds) if bounds else None

    async def up(self, models: Collection[str]) -> None:
        await together(fleet.up(mine) for fleet, mine in self._shares(models))

    async def down(self, models: Collection[str]) -> None:
        await asyncio.gather(*(fleet.down(mine) for fleet, mine in self._shares(models)))

    def _shares(self, models: Collection[str]) -> list[tuple[Fleet, list[str]]]:
        fleets = {id(self._fleets[name]): self._fleets[name] for name in models}
        return [
            (fleet, [name for name in models if self._fleets[name] is fleet])
            for fleet in fleets.values()
        ]
