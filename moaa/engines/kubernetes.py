"""Models served by Deployments of the moaa-serving chart: leased, scaled up, watched, given back.

A lease is an annotation of the Deployment (`moaa.kubernetes.leases`), renewed while it is needed:
whoever leaves last scales down, and what a crashed run left behind runs out by itself. Calls go to
the pods' own addresses, which EndpointSlices tell.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from functools import partial

from moaa.asking.session import Session
from moaa.chat.client import Client
from moaa.chat.pool import Endpoint
from moaa.concurrency import together
from moaa.engines.deployment import Leased, addresses, diagnosis, waiting
from moaa.errors import ClusterError, EngineError, MoaaError
from moaa.kubernetes import leases, names, pods
from moaa.kubernetes.api import Cluster, Object
from moaa.kubernetes.kinds import DEPLOYMENTS, PODS, SLICES
from moaa.kubernetes.mirror import Mirror
from moaa.kubernetes.refusal import Conflict, NotFound, Unreachable
from moaa.recipe.schema import Model

LOOK_EVERY_S = 1.0
"""For what only time changes: budgets and the seconds in notes. Changes on the cluster are acted on
at once."""
EVENTS_EVERY_S = 3.0
RELEASE_PATIENCE_S = 5.0
OUTSIDE = " (from outside a cluster its pods are rarely reached: run inside it)"


class KubernetesFleet:
    """Leased Deployments. The cluster schedules, so that all may be up at once; by turns, one is."""

    def __init__(
        self, session: Session, models: Mapping[str, Model], client: Client, cluster: Cluster
    ) -> None:
        self._engines = session.runtime.engines
        turns = self._engines.schedule == "by-turns"
        self.capacity = 1 if turns and len(models) > 1 else None
        self._names = names.by_dns(models)
        self._client, self._cluster = client, cluster
        self._ledger, self._progress = session.ledger, session.progress
        self._holder = names.holder()
        self._up: dict[str, Leased] = {}
        self._events: dict[str, str] = {}
        """The newest event's message of pods that are being created."""
        self._noted = False
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        ours = f"{names.MODEL} in ({','.join(self._names)})"
        self._deployments, self._pods, self._slices = self._mirrors = [
            Mirror(cluster, kind, ours, self._wake) for kind in (DEPLOYMENTS, PODS, SLICES)
        ]
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Look at the namespace, and keep looking. Raises ClusterError where it cannot be reached
        or a right is missing."""
        await together(asyncio.to_thread(mirror.start) for mirror in self._mirrors)
        self._tasks = [
            asyncio.create_task(each) for each in (self._tend(), self._renew(), self._read_events())
        ]
        for task in self._tasks:
            task.add_done_callback(self._ended)

    @property
    def absent(self) -> set[str]:
        """The models that no Deployment of the namespace serves."""
        return {model for dns, model in self._names.items() if not self._found(dns)}

    async def up(self, models: Collection[str]) -> None:
        """Lease what is not up yet, side by side; returns when a pod of each has really answered.
        Further pods join later.

        Raises EngineError when one does not within `start_timeout_s` or what its Deployment allows,
        or its pods ended too often: with the pod's own reason.
        """
        wanted = [
            name
            for name in dict.fromkeys(models)
            if name in self._names.values() and name not in self._up
        ]
        if not wanted:
            return
        begun = time.perf_counter()
        try:
            for name in wanted:
                self._up[name] = self._leased(name)
            await together(self._take(self._up[name]) for name in wanted)
            await together(self._up[name].answered() for name in wanted)
        except BaseException:
            await self.down(wanted)
            raise
        finally:
            self._ledger.seconds["engines"] = (
                self._ledger.seconds.get("engines", 0.0) + time.perf_counter() - begun
            )

    async def down(self, models: Collection[str]) -> None:
        """Give these back: they get no more calls, and are scaled down at once where nobody else
        holds a lease."""
        given = [self._up.pop(name) for name in models if name in self._up]
        for leased in given:
            leased.close()
            self._withdraw(leased, list(leased.endpoints))
        await asyncio.gather(*(self._release(leased) for leased in given))
        self._note()

    async def close(self) -> None:
        """Give all back. The leases first: a terminated pod has a fifth of a second."""
        await self.down(list(self._up))
        for task in self._tasks:
            task.cancel()
        for mirror in self._mirrors:
            mirror.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Leases.

    def _leased(self, model: str) -> Leased:
        found = self._found(names.dns(model))
        if not found:
            raise EngineError(remedy([model], self._cluster.namespace))
        if len(found) > 1:
            raise EngineError(
                f"model '{model}' is served by {len(found)} Deployments in namespace "
                f"'{self._cluster.namespace}' "
                f"({', '.join(found)}): which one is meant? Keep one, or give each release its "
                "own namespace."
            )
        leased = Leased(model, found[0])
        leased.seen(self._of(model, self._pods), before=True)
        return leased

    async def _take(self, leased: Leased) -> None:
        # Not to be left half done: who gives it back waits for it.
        leased.taking = asyncio.ensure_future(
            asyncio.to_thread(self._lease, leased, leases.RENEW_EVERY_S)
        )
        await asyncio.shield(leased.taking)

    def _lease(self, leased: Leased, patience_s: float) -> None:
        """A lease, new or renewed; scaled up again too, should someone have scaled it down."""

        def change(found: Object) -> Object | None:
            if leased.closed:
                return None
            now = time.time()
            annotations = found["metadata"].get("annotations") or {}
            return leases.patch(found, leases.add(annotations, self._holder, now), now)

        self._cluster.update(DEPLOYMENTS, leased.deployment, change, patience_s=patience_s)

    async def _release(self, leased: Leased) -> None:
        def change(found: Object) -> Object:
            now = time.time()
            return leases.patch(
                found,
                leases.release(found["metadata"].get("annotations") or {}, self._holder, now),
                now,
            )

        if leased.taking is not None:
            await asyncio.gather(leased.taking, return_exceptions=True)
        known = self._deployments.objects.get(leased.deployment)
        release = partial(self._cluster.update, DEPLOYMENTS, leased.deployment, change, known=known)
        try:
            await asyncio.to_thread(release, patience_s=RELEASE_PATIENCE_S)
        except NotFound:
            pass
        except MoaaError as error:
            self._ledger.events["leases left to run out"] += 1
            self._progress.note(
                f"the lease of {leased.model} was not given back and runs out in "
                f"{leases.LEASE_S:.0f} s: {error}"
            )

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(leases.RENEW_EVERY_S)
            await asyncio.gather(*(self._renew_one(leased) for leased in list(self._up.values())))

    async def _renew_one(self, leased: Leased) -> None:
        try:
            await asyncio.to_thread(self._lease, leased, leases.RENEW_EVERY_S)
        except (Unreachable, Conflict) as error:
            self._ledger.events["lease renewals missed"] += 1
            self._progress.note(f"the lease of {leased.model} could not be renewed: {error}")
        except MoaaError as error:
            self._give_up(
                leased,
                EngineError(f"the lease of model '{leased.model}' could not be renewed: {error}"),
            )

    # Pods and their addresses.

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and a mirror's thread still ends
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _tend(self) -> None:
        while True:
            # Not `wait_for`: it can take a cancellation for a result.
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await self._changed.wait()
            self._changed.clear()
            error = next((mirror.error for mirror in self._mirrors if mirror.error), None)
            for leased in list(self._up.values()):
                if error is not None:
                    self._give_up(
                        leased,
                        EngineError(f"model '{leased.model}' cannot be watched any more: {error}"),
                    )
                self._look(leased)
            self._note()

    def _look(self, leased: Leased) -> None:
        """Bring the pool in line with the pods that are ready, and count what they went through."""
        there = addresses(self._of(leased.model, self._slices))
        self._withdraw(leased, [url for url in leased.endpoints if url not in there])
        leased.forget([url for url in leased.probes if url not in there])
        for url in there:
            if url not in leased.probes:
                leased.probes[url] = asyncio.create_task(self._admit(leased, url))
        if restarts := leased.seen(self._of(leased.model, self._pods)):
            self._ledger.events["engine restarts"] += restarts
        if leased.endpoints or leased.failure or leased.ending:
            return
        if leased.restarts > self._engines.max_restarts:
            again = f"was started again {leased.restarts} times (runtime.engines.max_restarts: {self._engines.max_restarts})"
        elif time.monotonic() - leased.without_since > (budget := self._budget(leased))[0]:
            again = f"had no pod that answers for {budget[0]:.0f} s ({budget[1]})"
        else:
            return
        leased.ending = asyncio.create_task(self._end(leased, again))

    def _budget(self, leased: Leased) -> tuple[float, str]:
        """Seconds to a first answer, and who says so."""
        if self._engines.start_timeout_s is not None:
            return self._engines.start_timeout_s, "runtime.engines.start_timeout_s"
        allowed = (
            self._deployments.objects.get(leased.deployment, {})
            .get("spec", {})
            .get("progressDeadlineSeconds", 600)
        )
        return float(
            allowed
        ), "progressDeadlineSeconds of its Deployment; runtime.engines.start_timeout_s would rule"

    async def _admit(self, leased: Leased, url: str) -> None:
        """Into the pool once it has really answered."""
        endpoint = Endpoint(url=url, model=leased.model)
        try:
            await self._client.answers(endpoint, leased.model, self._budget(leased)[0])
        except EngineError as error:
            self._ledger.events["engine pods that did not answer"] += 1
            if not leased.endpoints:
                where = "" if self._cluster.inside else OUTSIDE
                self._give_up(
                    leased,
                    EngineError(f"Deployment {leased.deployment} is ready, but {error}{where}"),
                )
            return
        leased.endpoints[url] = endpoint
        leased.arrived()
        self._client.pool(leased.model).add(endpoint)
        self._note()

    def _withdraw(self, leased: Leased, gone: Collection[str]) -> None:
        for url in gone:
            self._client.pool(leased.model).remove(leased.endpoints.pop(url))
            leased.left()
            if not leased.closed:
                self._ledger.events["engine pods lost"] += 1

    async def _end(self, leased: Leased, what: str) -> None:
        text = await asyncio.to_thread(
            diagnosis,
            self._cluster,
            leased,
            self._state(leased),
            self._of(leased.model, self._pods),
        )
        self._give_up(leased, EngineError(f"model '{leased.model}' {what}. {text}"))

    def _give_up(self, leased: Leased, error: EngineError) -> None:
        if leased.failure is None:
            self._ledger.events["engines given up"] += 1
            leased.fail(error)
            self._client.pool(leased.model).fail(error)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A bug of ours ends the calls that wait, rather than letting them wait for ever."""
        if not task.cancelled() and (bug := task.exception()):
            for leased in self._up.values():
                self._give_up(
                    leased,
                    EngineError(f"model '{leased.model}' is not looked after any more: {bug!r}"),
                )

    # What is shown meanwhile.

    def _note(self) -> None:
        idle = [
            leased for leased in self._up.values() if not leased.endpoints and not leased.failure
        ]
        if idle or self._noted:
            self._progress.note(
                "waiting for " + "; ".join(f"{one.model}: {self._state(one)}" for one in idle)
                if idle
                else ""
            )
        self._noted = bool(idle)

    def _state(self, leased: Leased) -> str:
        deployment = self._deployments.objects.get(leased.deployment)
        if deployment is None:
            return f"Deployment {leased.deployment} was deleted"
        where = "" if self._cluster.inside else OUTSIDE
        asking = f" at {', '.join(sorted(leased.probes))}{where}" if leased.probes else ""
        return waiting(deployment, self._of(leased.model, self._pods), self._events, asking=asking)

    async def _read_events(self) -> None:
        """Why a pod's containers take long to be created (image, volumes) only its events tell."""
        while True:
            await asyncio.sleep(EVENTS_EVERY_S)
            for leased in list(self._up.values()):
                for pod in self._of(leased.model, self._pods) if not leased.endpoints else []:
                    name = pod["metadata"]["name"]
                    if pods.waits_for(pod, time.time()) == pods.CREATING:
                        with suppress(ClusterError):
                            found = await asyncio.to_thread(self._cluster.events, name)
                            self._events[name] = (
                                " ".join(found[-1].get("message", "").split()) if found else ""
                            )

    def _of(self, model: str, mirror: Mirror) -> list[Object]:
        dns = names.dns(model)
        return [
            each
            for each in mirror.objects.values()
            if each["metadata"].get("labels", {}).get(names.MODEL) == dns
        ]

    def _found(self, dns: str) -> list[str]:
        return [
            name
            for name, each in self._deployments.objects.items()
            if each["metadata"].get("labels", {}).get(names.MODEL) == dns
        ]


def remedy(models: Collection[str], namespace: str) -> str:
    """What to do about models that no Deployment serves."""
    named = ", ".join(f"'{model}'" for model in models)
    labels = ", ".join(f"{names.MODEL}={names.dns(model)}" for model in models)
    return (
        f"no Deployment in namespace '{namespace}' serves {named} (label {labels}). Install the "
        "recipe's ensemble:\n"
        "  moaa recipe helm-values RECIPE.yaml > values.yaml\n"
        f"  helm upgrade --install moaa-serving helm/moaa-serving --namespace {namespace} "
        "--values values.yaml"
    )
