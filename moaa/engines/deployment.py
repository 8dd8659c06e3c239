"""The state of one leased model: its addresses, its restarts, and whether it has failed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable

from moaa.chat.pool import Endpoint
from moaa.chat.pooling import Task
from moaa.errors import EngineError
from moaa.kubernetes import names, pods
from moaa.kubernetes.kinds import Object, Objects
from moaa.recipe.places import Places, max_num_seqs, places
from moaa.recipe.schema import Engines, Runtime


def places_of(runtime: Runtime, deployment: Object | None) -> Places:
    """Return the request places of an engine in this Deployment's pods,
    by its command line and GPUs."""
    pod = (deployment or {}).get("spec", {}).get("template", {}).get("spec", {})
    containers = pod.get("containers", [])
    args = [arg for each in containers for arg in each.get("args", [])]
    on_gpus = any(
        resource not in ("cpu", "memory", "ephemeral-storage")
        for each in containers
        for resource in each.get("resources", {}).get("limits", {})
    )
    return places(runtime, "cuda" if on_gpus else "cpu", max_num_seqs(args))


class Leased:
    """One model from `up` to `down`."""

    def __init__(self, model: str, deployment: str, task: Task = "chat") -> None:
        self.model, self.deployment, self.task = model, deployment, task
        self.endpoints: dict[str, Endpoint] = {}
        """The endpoints in the pool, by address."""
        self.probes: dict[str, asyncio.Task[None]] = {}
        """For each address: the task that asks a ready pod for a first answer. Kept while the pod
        is ready."""
        self.without_since = time.monotonic()
        """Since when it has had no endpoint; only used while it has none."""
        self.restarts = 0
        self.failure: EngineError | None = None
        self.closed = False
        self.lease_task: asyncio.Future[None] | None = None
        self.diagnosis_task: asyncio.Task[None] | None = None
        self._known_restarts: dict[str, int] = {}
        self._decided = asyncio.Event()

    async def first_answer(self) -> None:
        """Wait until a pod has answered. Raises EngineError if the model has failed."""
        await self._decided.wait()
        if self.failure is not None:
            raise self.failure

    def add(self, url: str, endpoint: Endpoint) -> None:
        """Add the pod at this address: it has answered."""
        self.endpoints[url] = endpoint
        self._decided.set()

    def remove(self, url: str) -> Endpoint:
        """Remove the pod at this address; return its endpoint."""
        endpoint = self.endpoints.pop(url)
        if not self.endpoints:
            self.without_since = time.monotonic()
        return endpoint

    def fail(self, error: EngineError) -> None:
        """Give up the model: `first_answer` raises this error."""
        self.failure = error
        self._decided.set()

    def count_restarts(self, found: Objects, *, baseline: bool = False) -> int:
        """Return how many restarts of these pods are new. `baseline`: only remember the restarts
        from before the lease."""
        new = 0
        for pod in found:
            uid, count = pod["metadata"]["uid"], pods.restarts(pod)
            known = self._known_restarts.get(uid, 0)
            if count > known:
                self._known_restarts[uid] = count
                new += count - known
        if baseline:
            return 0
        self.restarts += new
        return new

    def forget(self, gone: Collection[str]) -> None:
        """Stop asking the pods at these addresses."""
        for url in gone:
            self.probes.pop(url).cancel()

    def close(self) -> None:
        """Cancel all tasks that still run for this lease."""
        self.closed = True
        self.forget(list(self.probes))
        if self.diagnosis_task is not None:
            self.diagnosis_task.cancel()


def addresses(slices: Iterable[Object]) -> dict[str, str]:
    """Return {base address: name of the pod} for the pods that are ready, from EndpointSlices."""
    found = {}
    for each in slices:
        ports = each.get("ports") or []
        port = next((p for p in ports if p.get("name") == "http"), ports[0] if ports else {})
        number = port.get("port", names.PORT)
        for endpoint in each.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                for address in endpoint["addresses"][:1]:
                    host = f"[{address}]" if ":" in address else address
                    pod = (endpoint.get("targetRef") or {}).get("name", "")
                    found[f"http://{host}:{number}/v1"] = pod
    return found


def start_budget(engines: Engines, deployment: Object | None) -> tuple[float, str]:
    """Return the seconds allowed until a first answer, and the setting that they come from."""
    if engines.start_timeout_s is not None:
        return engines.start_timeout_s, "runtime.engines.start_timeout_s"
    spec = (deployment or {}).get("spec", {})
    return (
        float(spec.get("progressDeadlineSeconds", 600)),
        "progressDeadlineSeconds of its Deployment; runtime.engines.start_timeout_s overrides it",
    )
