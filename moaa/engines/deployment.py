"""One leased model: its addresses, what its pods went through, and how that reads."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from moaa.chat.pool import Endpoint
from moaa.engines.server import COLOUR, tail
from moaa.errors import ClusterError, EngineError
from moaa.kubernetes import names, pods
from moaa.kubernetes.api import Cluster, Object, Objects

LOG_LINES = 400
_REMEDIES = {
    pods.UNSCHEDULABLE: "Free the pool, or set runtime.engines.schedule to 'by-turns' to run the "
    "ensemble one model at a time.",
    "ImagePull": "Correct the image in the chart's values, or its pull secret.",
    "InvalidImageName": "Correct the image in the chart's values.",
    "ErrImageNeverPull": "Load the image on the nodes, or let the chart's pull policy fetch it.",
    "CreateContainerConfigError": "Make the Secret or ConfigMap that it names.",
    "OOMKilled": "Raise the model's memory in the chart's values.",
    "no pod can be created": "Ask for less, or have the namespace's quota or policy changed.",
}


class Leased:
    """The state of one model between `up` and `down`."""

    def __init__(self, model: str, deployment: str) -> None:
        self.model, self.deployment = model, deployment
        self.endpoints: dict[str, Endpoint] = {}
        """In the pool, by address."""
        self.probes: dict[str, asyncio.Task[None]] = {}
        """Asked for a first answer, or asked before, by address."""
        self.without_since = time.monotonic()
        self.restarts = 0
        self.failure: EngineError | None = None
        self.ending: asyncio.Task[None] | None = None
        self.taking: asyncio.Future[None] | None = None
        self.closed = False
        self._restarts: dict[str, int] = {}
        self._settled = asyncio.Event()

    async def answered(self) -> None:
        """Returns when the first pod has answered. Raises the EngineError it failed of."""
        await self._settled.wait()
        if self.failure is not None:
            raise self.failure

    def arrived(self) -> None:
        self._settled.set()

    def left(self) -> None:
        if not self.endpoints:
            self.without_since = time.monotonic()

    def fail(self, error: EngineError) -> None:
        self.failure = error
        self._settled.set()

    def seen(self, found: Objects, *, before: bool = False) -> int:
        """How many restarts are new. Those `before` it was leased are nobody's fault."""
        new = 0
        for pod in found:
            count, known = pods.restarts(pod), self._restarts.get(pod["metadata"]["uid"], 0)
            if count > known:
                self._restarts[pod["metadata"]["uid"]] = count
                new += count - known
        if before:
            return 0
        self.restarts += new
        return new

    def forget(self, gone: Collection[str]) -> None:
        for url in gone:
            self.probes.pop(url).cancel()

    def close(self) -> None:
        """No more of it: what still runs for it ends."""
        self.closed = True
        self.forget(list(self.probes))
        if self.ending is not None:
            self.ending.cancel()


def addresses(slices: Iterable[Object]) -> set[str]:
    """Base addresses of the pods that are ready, from EndpointSlices."""
    found = set()
    for each in slices:
        ports = each.get("ports") or []
        port = next((p for p in ports if p.get("name") == "http"), ports[0] if ports else {}).get(
            "port", names.PORT
        )
        for endpoint in each.get("endpoints") or []:
            if (endpoint.get("conditions") or {}).get("ready") is not False:
                for address in endpoint["addresses"][:1]:
                    host = f"[{address}]" if ":" in address else address
                    found.add(f"http://{host}:{port}/v1")
    return found


def waiting(deployment: Object, found: Objects, events: Mapping[str, str], *, asking: str) -> str:
    """What a model without an endpoint waits for, in words; `asking`: how its first answer is asked
    for, if it is."""
    now = time.time()
    states = [
        pods.waits_for(pod, now, events.get(pod["metadata"]["name"], "")) for pod in _current(found)
    ]
    states = [state for state in states if state]
    if states:
        return pods.summary(states)
    if asking or _current(found):
        return f"ready; its first answer{asking}"
    return pods.without_pods(deployment)


def diagnosis(cluster: Cluster, leased: Leased, state: str, found: Objects) -> str:
    """Why it does not answer: the state of its pods, what to do, the last lines of the log, the
    events. Blocks."""
    pod = max(
        _current(found),
        key=lambda each: (bool(pods.waits_for(each, 0.0)), pods.restarts(each)),
        default=None,
    )
    text = f"Deployment {leased.deployment} in namespace '{cluster.namespace}': {state}."
    died = pods.death(pod) if pod else ""
    if died and died.rpartition("' ")[2] not in state:
        text += f" Before that, {died}."
    text += "".join(f" {what}" for sign, what in _REMEDIES.items() if sign in f"{state} {died}")
    try:
        text += _log(cluster, pod) if pod else ""
        shown: Any = pod["metadata"]["name"] if pod else leased.deployment
        if lines := pods.told(cluster.events(shown)):
            text += f"\n  events of {shown}:" + "".join(f"\n    {line}" for line in lines)
    except ClusterError as error:
        text += f"\n  (no more could be read: {error})"
    return text


def _log(cluster: Cluster, pod: Object) -> str:
    container = pods.culprit(pod)
    if container is None:
        return ""
    name = pod["metadata"]["name"]
    text = cluster.log(name, container, lines=LOG_LINES, previous=pods.restarts(pod) > 0)
    text = text or cluster.log(name, container, lines=LOG_LINES)
    lines = tail(COLOUR.sub("", text).rstrip().splitlines())
    return (
        f"\n  the end of the log of {name} ({container}):"
        + "".join(f"\n    {line}" for line in lines)
        if lines
        else ""
    )


def _current(found: Objects) -> Objects:
    """The pods that are not on their way out, unless there is no other."""
    staying = [pod for pod in found if not pod["metadata"].get("deletionTimestamp")]
    return sorted(staying or found, key=lambda pod: pod["metadata"]["name"])
