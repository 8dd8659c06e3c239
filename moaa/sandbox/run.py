"""Runs programs in a Kubernetes Job: one Job for all waiting programs."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final

from moaa.errors import ClusterError, MoaaError, RowRejected
from moaa.kubernetes import names, pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import NotFound
from moaa.kubernetes.kinds import JOBS, PODS, Object
from moaa.kubernetes.transport import OUTAGE_S
from moaa.recipe.schema import Runtime
from moaa.sandbox import objects

MOST: Final = 200
"""The most programs of one Job: an object of Kubernetes has at most 1.5 MB."""
MOST_CHARACTERS: Final = 2_000_000
"""The most characters of their texts together; packing makes them about five times smaller."""
POLL_S: Final = 2.0
GATHER_S: Final = 20.0
"""A Job starts when no further program has come for this long."""
LOG_LINES: Final = 10_000
NO_SANDBOX: Final = "not run"
"""The reason of an answer whose program was not run."""


@dataclass(frozen=True, slots=True)
class Timing:
    """How long the sandbox waits, in seconds."""

    gather_s: float = GATHER_S
    poll_s: float = POLL_S


def why_not(runtime: Runtime) -> str:
    """Return why programs of models cannot be run here; empty if they can."""
    if "KUBERNETES_SERVICE_HOST" in os.environ or runtime.engines.kind == "kubernetes":
        return ""
    return (
        "it runs programs that models wrote, and does that only in a pod of Kubernetes without "
        "network, token or writable folder. This run is on one machine."
    )


class Sandbox:
    """Runs programs. Programs that arrive at nearly the same time share a Job."""

    def __init__(
        self,
        runtime: Runtime,
        timing: Timing = Timing(),
        connect: Callable[[str | None], Cluster] = partial(Cluster.connect, patience_s=OUTAGE_S),
    ) -> None:
        """The connection to the cluster is made when the first program comes."""
        self._runtime, self._timing, self._connect = runtime, timing, connect
        self._waiting: dict[str, tuple[str, asyncio.Future[str]]] = {}
        self._last = 0.0
        self._gathering: asyncio.Task[None] | None = None
        self._jobs: set[asyncio.Task[None]] = set()
        self._failed = ""

    async def run(self, program: str) -> str:
        """Return `passed`, or why the program did not pass.

        Raises RowRejected if there is no isolated pod, or the pod was lost.
        """
        if self._failed:
            raise RowRejected(NO_SANDBOX, self._failed)
        future: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._waiting[f"{len(self._waiting)}"] = (program, future)
        self._last = time.monotonic()
        if self._full:
            self._begin()
        elif self._gathering is None:
            self._gathering = asyncio.create_task(self._gather())
        return await future

    @property
    def _full(self) -> bool:
        texts = sum(len(program) for program, _ in self._waiting.values())
        return len(self._waiting) >= MOST or texts >= MOST_CHARACTERS

    async def _gather(self) -> None:
        while (left := self._last + self._timing.gather_s - time.monotonic()) > 0:  # noqa: ASYNC110
            await asyncio.sleep(left)
        self._begin()

    def _begin(self) -> None:
        batch, self._waiting = self._waiting, {}
        if self._gathering and self._gathering is not asyncio.current_task():
            self._gathering.cancel()
        self._gathering = None
        if batch:
            job = asyncio.create_task(self._job(batch))
            self._jobs.add(job)
            job.add_done_callback(self._jobs.discard)

    async def _job(self, batch: Mapping[str, tuple[str, asyncio.Future[str]]]) -> None:
        try:
            programs = {name: program for name, (program, _) in batch.items()}
            found = await asyncio.to_thread(self.outcomes, programs)
        except MoaaError as error:
            self._failed = str(error)
            found = {}
        for name, (_, future) in batch.items():
            if future.done():
                continue
            if name in found:
                future.set_result(found[name])
            else:
                why = self._failed or "its pod ended before it"
                future.set_exception(RowRejected(NO_SANDBOX, why))

    def outcomes(self, programs: Mapping[str, str]) -> dict[str, str]:
        """Return the outcome of each program by name; those that were not run are missing.

        Blocks. Raises ClusterError.
        """
        body = objects.job(programs, self._runtime, os.environ.get(names.RUN_ENV, "by-hand"))
        name = body["metadata"]["name"]
        cluster = self._connect(self._runtime.cluster.namespace)
        cluster.create(JOBS, body)
        try:
            self._wait(cluster, name)
            return _read(cluster, name)
        finally:
            cluster.delete(JOBS, name)

    def _wait(self, cluster: Cluster, name: str) -> None:
        while True:
            try:
                job = cluster.get(JOBS, name)
            except NotFound:
                raise ClusterError(f"the Job {name} was deleted while it ran") from None
            if pods.ended(job):
                return
            time.sleep(self._timing.poll_s)


def _read(cluster: Cluster, name: str) -> dict[str, str]:
    found: dict[str, str] = {}
    selector = f"batch.kubernetes.io/job-name={name}"
    ran: list[Object] = cluster.list(PODS, selector)
    for pod in ran:
        log = cluster.log(pod["metadata"]["name"], objects.CONTAINER, lines=LOG_LINES)
        for line in log.splitlines():
            said = _line(line)
            if "refused" in said:
                raise ClusterError(
                    f"the sandbox of programs is not isolated: {said['refused']}. No program "
                    "was run. Install the moaa-platform chart with sandbox.enabled=true, on a "
                    "cluster whose network enforces policies."
                )
            if "id" in said:
                found.setdefault(said["id"], said["outcome"])
    if not found:
        why = "; ".join(filter(None, (pods.death(pod) for pod in ran)))
        waits = pods.summary(pods.waits_for(pod, time.time()) for pod in ran)
        raise ClusterError(
            f"the sandbox's Job {name} ended without a result: {why or waits or 'no pod'}"
        )
    return found


def _line(line: str) -> dict[str, str]:
    try:
        found = json.loads(line)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
