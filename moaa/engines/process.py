"""Models served by vLLM on this machine, each on its own devices:
started in parallel, kept up, stopped."""

from __future__ import annotations

import asyncio
import importlib.util
import re
import shutil
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from moaa.asking.session import Session
from moaa.chat.client import Client
from moaa.chat.pool import Endpoint
from moaa.concurrency import detached, together
from moaa.engines import cores
from moaa.engines.devices import dtype_on, hardware, shares
from moaa.engines.server import Server, Spec, seqs
from moaa.errors import EngineError
from moaa.recipe.places import places
from moaa.recipe.schema import Model
from moaa.weights import hub, local

START_TIMEOUT_S: Final = 900.0
"""The longest time to a first answer, unless `runtime.engines.start_timeout_s` is set."""

_MORE_OF_THE_HUB: Final = re.compile(r"/|^--trust-remote-code$")
"""Engine arguments that name another model, adapter or path, or that allow code, which may come
from another repository."""


@dataclass(slots=True, eq=False)
class _Replica:
    """One server of a model that is kept up. `keeper`:
    the task that restarts it when it dies or hangs."""

    spec: Spec
    server: Server | None = None
    endpoint: Endpoint | None = None
    keeper: asyncio.Task[None] | None = None


class ProcessFleet:
    """vLLM servers as child processes. At most `capacity` models are up at the same time (None:
    all)."""

    def __init__(self, session: Session, models: Mapping[str, Model], client: Client) -> None:
        self._session, self._models, self._client = session, dict(models), client
        self._engines = session.runtime.engines
        found = hardware()
        self._kind = found.kind
        # On CPUs one engine takes any number of cores: tensor_parallel only counts on GPUs.
        needs = {
            name: model.tensor_parallel if found.kind == "cuda" else 1
            for name, model in self._models.items()
        }
        capacity, self._shares = shares(needs, len(found.ids))
        self.capacity = capacity if capacity < len(self._models) else None
        self._free = list(found.ids)
        self._cores: cores.Reservation | None = None
        self._up: dict[str, list[_Replica]] = {}
        self._logs = Path(tempfile.mkdtemp(prefix="moaa-engines-"))
        self._attempts = 0
        self._failed = False

    async def up(self, models: Collection[str]) -> None:
        """Start the models that are not up, in parallel; return when each has answered a request.

        Afterwards all of them are up, or none. Raises EngineError with the last lines of the log as
        soon as one stops, or if one does not answer in time.
        """
        names = [
            name for name in dict.fromkeys(models) if name in self._models and name not in self._up
        ]
        if not names:
            return
        with self._session.ledger.timed("engines"):
            await self._up_together(names)

    async def _up_together(self, names: list[str]) -> None:
        try:
            folders = await together(
                detached(partial(self._local, self._models[name])) for name in names
            )
            await self._take_cores()
            self._session.progress.note(f"starting {', '.join(names)}")
            for name in names:
                if (dtype := self._models[name].dtype) != (served := dtype_on(self._kind, dtype)):
                    self._session.ledger.events[f"served in {served}: the CPU has no {dtype}"] += 1
            for name, folder in zip(names, folders, strict=True):
                self._up[name] = [_Replica(spec) for spec in self._specs(name, folder)]
            await together(
                self._start_and_keep(replica) for name in names for replica in self._up[name]
            )
        except BaseException:
            await self.down(names)
            raise
        finally:
            self._session.progress.note("")

    async def down(self, models: Collection[str]) -> None:
        """Stop these models: they get no more calls, and their processes are gone within 10 s."""
        replicas = [replica for name in models for replica in self._up.pop(name, [])]
        for replica in replicas:
            self._withdraw(replica)
            if replica.keeper:
                replica.keeper.cancel()
        await asyncio.gather(*(r.keeper for r in replicas if r.keeper), return_exceptions=True)
        await asyncio.gather(*(r.server.stop() for r in replicas if r.server))
        self._free += [device for replica in replicas for device in replica.spec.devices]

    async def close(self) -> None:
        """Stop all models. The logs are kept if an engine died, else removed."""
        await self.down(list(self._up))
        if self._cores:
            self._cores.release()
        if not self._failed:
            shutil.rmtree(self._logs, ignore_errors=True)

    def _local(self, model: Model) -> str:
        """Return what the model's servers load. It is complete before the time
        for their start begins."""
        found = local.resolve(model.source, self._session.store, model.revision)
        if Path(found).is_dir() or importlib.util.find_spec("huggingface_hub") is None:
            return found
        self._session.progress.note(f"fetching {found}")
        weights = (
            () if any(arg.startswith("--load-format") for arg in model.engine_args) else hub.PICKLED
        )
        folder = hub.download(found, model.revision, weights=weights)
        # A server that loads a folder may not use the hub. One that needs more files from the hub
        # gets the id, and finds these files in the cache.
        needs_hub = any(_MORE_OF_THE_HUB.search(arg) for arg in model.arguments)
        return found if needs_hub else str(folder)

    def _specs(self, name: str, folder: str) -> list[Spec]:
        """Return the servers of a model: one on all cores of its share, or one for every
        `tensor_parallel` GPUs of its share."""
        model, share = self._models[name], self._shares[name]
        if share > len(self._free):
            raise EngineError(
                f"'{name}' cannot be started beside {', '.join(self._up)}: only {self.capacity} "
                "fit at once."
            )
        mine, self._free = self._free[:share], self._free[share:]
        each = model.tensor_parallel if self._kind == "cuda" else share
        if Path(folder).is_dir():
            model = model.model_copy(update={"revision": None})  # the folder has that revision
        return [
            Spec(name, folder, model, self._engines, self._kind, tuple(mine[at : at + each]))
            for at in range(0, share, each)
        ]

    async def _take_cores(self) -> None:
        if self._kind != "cpu" or self._cores:
            return
        wanted, what = len(self._free), f"engines of {', '.join(self._models)}"
        while (held := cores.attempt(wanted, what)) is None:
            self._session.progress.note(cores.waiting(wanted, what))
            await asyncio.sleep(cores.POLL_S)
        self._cores = held
        self._free = [str(core) for core in held.cores]

    async def _start(self, replica: _Replica) -> None:
        """Start a server of this replica; add it to the pool once it has answered."""
        spec, timeout_s = replica.spec, replica.spec.engines.start_timeout_s or START_TIMEOUT_S
        self._attempts += 1
        server = replica.server = await Server.launch(
            spec, self._logs / f"{_as_file(spec.name)}.{self._attempts}.log"
        )
        try:
            endpoint = Endpoint(
                url=server.url,
                model=spec.name,
                task=spec.model.task,
                kept=True,
                places=places(self._session.runtime, spec.kind, seqs(spec)),
            )
            await server.ready(self._client.answers(endpoint, spec.name, timeout_s))
        except BaseException as error:
            self._failed |= isinstance(error, EngineError)
            await server.stop()
            raise
        replica.endpoint = endpoint
        self._client.pool(spec.name).add(endpoint)

    async def _start_and_keep(self, replica: _Replica) -> None:
        await self._start(replica)
        replica.keeper = asyncio.create_task(
            self._keep_up(replica), name=f"keeper of {replica.spec.name}"
        )

    async def _keep_up(self, replica: _Replica) -> None:
        """Restart the server when it dies or hangs, at most `max_restarts` times. After that its
        calls fail, unless another replica is left."""
        name, most = replica.spec.name, self._engines.max_restarts
        try:
            error = await self._next_death(replica)
            for restart in range(1, most + 1):
                self._session.ledger.events["engine restarts"] += 1
                self._session.progress.note(
                    f"the engine of {name} died or hung; restarting it ({restart} of {most})"
                )
                try:
                    await self._start(replica)
                except EngineError as failure:
                    error = failure
                    continue
                self._session.progress.note("")
                error = await self._next_death(replica)
        except Exception as bug:
            self._client.pool(name).fail(
                EngineError(
                    f"the engine of model '{name}' died and could not be restarted: {bug!r}"
                )
            )
            raise
        self._session.ledger.events["engines given up"] += 1
        others = [other for other in self._up[name] if other is not replica]
        if all(other.keeper and other.keeper.done() for other in others):
            self._client.pool(name).fail(
                EngineError(
                    f"{error}\n  It was restarted {most} times (runtime.engines.max_restarts)."
                )
            )

    async def _next_death(self, replica: _Replica) -> EngineError:
        """Wait until the replica's server dies or hangs, and take it out of the pool. Return what
        happened. A server that hangs is stopped."""
        server, endpoint = replica.server, replica.endpoint
        assert server is not None
        assert endpoint is not None
        ended = asyncio.ensure_future(server.ended())
        hangs = asyncio.ensure_future(endpoint.lost.wait())
        try:
            await asyncio.wait({ended, hangs}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (ended, hangs):
                task.cancel()
        self._failed = True
        self._withdraw(replica)
        if not endpoint.lost.is_set():
            return server.death("died")
        self._session.ledger.events["engines that answered nothing any more"] += 1
        await server.stop()
        return server.death(f"was stopped: {endpoint.why_lost}")

    def _withdraw(self, replica: _Replica) -> None:
        if replica.endpoint:
            self._client.pool(replica.spec.name).remove(replica.endpoint)
            replica.endpoint = None


def _as_file(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_." else "_" for c in name)
