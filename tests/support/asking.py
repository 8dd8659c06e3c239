"""What tests of `ask_all` share: a fleet of no engines, a bench that keeps its journal over
attempts, two small methods."""

from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import asynccontextmanager

from moaa.asking import Session, ask_all
from moaa.chat.pool import Endpoint
from moaa.errors import EngineError
from moaa.journal import S3Journal
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.places import Places
from moaa.recipe.schema import Calls, Engines, Model, Runtime, Sampling
from tests.support.engine_server import EngineServer
from tests.support.memory_store import MemoryStore

MODELS = ("a", "b", "c")
SHORT = Sampling(max_tokens=8)


class FakeFleet:
    """Engines of nothing: a model is up when its server of ours is in its pool. Keeps what was
    started, and checks the rules."""

    def __init__(
        self,
        server: EngineServer,
        capacity: int | None = None,
        start_s: float = 0.0,
        places: Places | None = None,
    ) -> None:
        self.server, self.capacity, self.start_s = server, capacity, start_s
        self.places = places
        self.starts: Counter[str] = Counter()
        self.entered = self.left = 0
        self.leaving = False
        self.broken: dict[str, str] = {}
        self._up: dict[str, Endpoint] = {}

    @asynccontextmanager
    async def start(self, session, client):
        self._client, models, store = client, session.models, session.store
        self.entered += 1
        for name, model in models.items():
            if model.endpoint:
                client.pool(name).add(Endpoint(model.endpoint.url, name))
        self._own = {name for name, model in models.items() if not model.endpoint}
        try:
            yield self
        finally:
            self.leaving = True
            self.journaled_at_exit = len([uri for uri, _ in store.list(store.root)])
            await self.down(list(self._up))
            self.left += 1

    async def up(self, models) -> None:
        await asyncio.sleep(self.start_s)
        for model in sorted(set(models) & self._own - set(self._up)):
            if model in self.broken:
                raise EngineError(self.broken[model])
            self.starts[model] += 1
            self._up[model] = Endpoint(self.server.url, model, places=self.places)
            assert self.capacity is None or len(self._up) <= self.capacity, (
                f"{set(self._up)} are up at once"
            )
            self._client.pool(model).add(self._up[model])

    async def down(self, models) -> None:
        for model in models:
            endpoint = self._up.pop(model)
            self._client.pool(model).remove(endpoint)
            assert endpoint.in_flight == 0 or self.leaving, f"{model} was stopped at work"


class Bench:
    """All that `ask_all` needs, kept over several attempts at the same work."""

    def __init__(self, server: EngineServer) -> None:
        self.server, self.store = server, MemoryStore()
        self.ledger, self.progress = Ledger(), Progress.silent()

    def run(
        self,
        items,
        work,
        *,
        fleet: FakeFleet | None = None,
        models=MODELS,
        kind="process",
        schedule="auto",
        served=(),
        no_system_role=(),
        **calls,
    ):
        self.fleet = fleet or FakeFleet(self.server)
        self.ledger, self.progress = Ledger(), Progress.silent()
        described = {
            m: Model(
                source=m,
                endpoint={"url": self.server.url} if m in served else None,
                system_role=m not in no_system_role,
            )
            for m in models
        }
        runtime = Runtime(
            engines=Engines(kind=kind, schedule=schedule), calls=Calls(**{"retries": 2, **calls})
        )
        session = Session(
            described, runtime, self.store, self.ledger, self.progress, self.fleet.start
        )
        self.journal = S3Journal(self.store, "s3://memory/root/journal", flush_s=60)
        self.journal.open()
        try:
            ask_all({str(item): item for item in items}, work, session, self.journal)
        finally:
            self.journal.close()
        return {item: self.journal.finished[str(item)] for item in items}


def user(text: str):
    return [{"role": "user", "content": text}]


async def mixture(item, ask):
    """Two turns of a small mixture: b and c propose, a aggregates."""
    said = str(item)
    for _ in range(2):
        proposals = await asyncio.gather(*(ask(model, user(said), SHORT) for model in ("b", "c")))
        said = (await ask("a", user(" / ".join(p.text for p in proposals)), SHORT)).text
    return {"said": said}


async def one_call(item, ask):
    return {"said": (await ask("a", user(str(item)), SHORT)).text}
