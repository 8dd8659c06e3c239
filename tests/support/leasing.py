"""A client and a leased fleet on some cluster, with their ledger and notes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from moaa.chat.client import Client
from moaa.chat.message import Call
from moaa.chat.pooling import Task
from moaa.engines.kubernetes import KubernetesFleet
from moaa.engines.leasing import Timing
from moaa.kubernetes.api import Cluster
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Calls, Engines, Model, Runtime, Sampling
from tests.support.sessions import session_of


class Bench:
    """A client and a fleet, with their ledger and notes."""

    def __init__(self, client: Client, fleet: Any, ledger: Ledger, progress: Progress) -> None:
        self.client, self.fleet, self.ledger, self.progress = client, fleet, ledger, progress

    async def ask(self, model: str, text: str = "Hello") -> str:
        return (
            await self.client.send(
                Call(model, ({"role": "user", "content": text},), Sampling(max_tokens=8))
            )
        ).text

    @property
    def note(self) -> str:
        return self.progress.view().note


@asynccontextmanager
async def fleet(
    cluster: Cluster,
    *models: str,
    calls: Calls = Calls(timeout_s=5),
    timing: Timing = Timing(),
    task: Task = "chat",
    **how: Any,
) -> AsyncIterator[Bench]:
    """`how`: fields of runtime.engines."""
    ledger, progress = Ledger(), Progress.silent()
    runtime = Runtime(engines=Engines(kind="kubernetes", **how), calls=calls)
    async with Client(runtime.calls, ledger) as client:
        made = {name: Model(source="org/name", task=task) for name in models}
        session = session_of(made, runtime, ledger=ledger, progress=progress)
        leased = KubernetesFleet(session, made, client, cluster, timing)
        try:
            await leased.open()
            yield Bench(client, leased, ledger, progress)
        finally:
            await leased.close()
