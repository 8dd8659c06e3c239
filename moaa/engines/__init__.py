"""Who answers: servers that are up already, vLLM started on this machine, or Deployments leased for
as long as a stage works.

async with engines.start(models, runtime, client, store, ledger, progress) as fleet:
    await fleet.up(["gemma", "llama"])      # their endpoints are in client.pool(…), each has really answered
    ...
    await fleet.down(["llama"])
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Protocol

from moaa.chat.client import Client
from moaa.engines.concurrency import together
from moaa.engines.endpoint import endpoint
from moaa.errors import EngineError
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Model, Runtime
from moaa.store import Store

ENDPOINT_TIMEOUT_S = 60.0
"""For the first one-token answer of a server that is said to be up."""


class Fleet(Protocol):
    """The models of a stage that have to be started. Those with an `endpoint` are always up and
    never count."""

    capacity: int | None
    """How many of these models can be up at once; None: all of them."""

    async def up(self, models: Collection[str]) -> None:
        """Start what is not up yet, side by side; returns when each has really answered. Raises
        EngineError."""

    async def down(self, models: Collection[str]) -> None:
        """Stop these: they get no more calls, and are gone within 10 s."""


class NothingToStart:
    """The fleet of models that are all served elsewhere."""

    capacity: int | None = None

    async def up(self, models: Collection[str]) -> None:
        pass

    async def down(self, models: Collection[str]) -> None:
        pass


@asynccontextmanager
async def start(
    models: Mapping[str, Model],
    runtime: Runtime,
    client: Client,
    store: Store,
    ledger: Ledger,
    progress: Progress,
) -> AsyncIterator[Fleet]:
    """The fleet of `models`, none of it up yet; leaving the context stops all of it. Endpoints are
    checked on entering."""
    served = {name: endpoint(name, model) for name, model in models.items() if model.endpoint}
    others = {name: model for name, model in models.items() if not model.endpoint}
    for name, address in served.items():
        client.pool(name).add(address)
    await together(
        client.answers(address, name, ENDPOINT_TIMEOUT_S) for name, address in served.items()
    )
    if not others:
        yield NothingToStart()
    elif runtime.engines.kind == "process":
        from moaa.engines.process import ProcessFleet

        fleet = ProcessFleet(others, runtime, client, store, ledger, progress)
        try:
            yield fleet
        finally:
            await fleet.close()
    elif runtime.engines.kind == "endpoint":
        raise EngineError(
            f"runtime.engines.kind is 'endpoint', but {_named(others)} no `endpoint`. "
            "Give models.NAME.endpoint.url, or set runtime.engines.kind to 'process' to start "
            "vLLM here."
        )
    else:
        from moaa.engines.composite import serving

        async with serving(others, runtime, client, store, ledger, progress) as leased:
            yield leased


def _named(models: Collection[str]) -> str:
    names = ", ".join(f"'{name}'" for name in models)
    return f"model {names} has" if len(models) == 1 else f"models {names} have"
