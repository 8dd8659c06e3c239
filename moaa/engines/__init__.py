"""Engines that answer: servers that are already up, vLLM started on this machine, or Deployments
leased while a stage runs.

    async with engines.start(session, client) as fleet:
        await fleet.up(["gemma", "llama"])  # each has answered a request, see client.pool(...)
        ...
        await fleet.down(["llama"])
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager

from moaa.asking.fleet import Fleet
from moaa.asking.session import Session
from moaa.chat.client import Client
from moaa.concurrency import together
from moaa.engines.endpoint import NothingToStart, endpoint
from moaa.errors import EngineError

ENDPOINT_TIMEOUT_S = 60.0
"""How long a server that should be up may take for its first one-token answer."""


@asynccontextmanager
async def start(session: Session, client: Client) -> AsyncIterator[Fleet]:
    """Yield the fleet of the session's models, none of it up yet. Leaving the context stops all of
    them.

    Models with an `endpoint` must answer at once (or say that they are busy). Raises EngineError.
    """
    served = {name: model for name, model in session.models.items() if model.endpoint}
    others = {name: model for name, model in session.models.items() if not model.endpoint}
    addresses = {name: endpoint(name, model, session.runtime) for name, model in served.items()}
    for name, address in addresses.items():
        client.pool(name).add(address)
    await together(
        client.answers(address, name, ENDPOINT_TIMEOUT_S, or_is_busy=True)
        for name, address in addresses.items()
    )
    kind = session.runtime.engines.kind
    if not others:
        yield NothingToStart()
    elif kind == "process":
        from moaa.engines.process import ProcessFleet

        fleet = ProcessFleet(session, others, client)
        try:
            yield fleet
        finally:
            await fleet.close()
    elif kind == "endpoint":
        raise EngineError(
            f"runtime.engines.kind is 'endpoint', but {_named(others)} no `endpoint`. Give "
            "models.NAME.endpoint.url, or set runtime.engines.kind to 'process' to start vLLM here."
        )
    else:
        from moaa.engines.composite import start_on_cluster

        async with start_on_cluster(session, others, client) as leased:
            yield leased


def _named(models: Collection[str]) -> str:
    names = ", ".join(f"'{name}'" for name in models)
    return f"model {names} has" if len(models) == 1 else f"models {names} have"
