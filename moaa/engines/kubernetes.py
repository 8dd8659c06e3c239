"""Models served by Deployments of the moaa-serving chart: leased, scaled up, watched, released.

A lease is renewed while the model is needed. The last holder that releases its lease scales the
model down; the lease of a crashed run expires. Calls go to the pods' own addresses.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Collection, Mapping
from contextlib import suppress

from moaa.asking.session import Session
from moaa.chat.client import Client
from moaa.chat.pool import Endpoint
from moaa.concurrency import together
from moaa.engines.deployment import Leased, places_of, start_budget
from moaa.engines.diagnosis import diagnosis, no_deployment, state
from moaa.engines.leasing import LeaseHolder, Timing
from moaa.engines.pod_replacer import PodReplacer
from moaa.engines.view import ClusterView
from moaa.errors import EngineError, MoaaError
from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Conflict, Unreachable
from moaa.recipe.schema import Model

OUTSIDE = " (from outside a cluster its pods are rarely reached: run inside it)"


class KubernetesFleet:
    """Leased Deployments. The cluster schedules, so all models may be up at the same time; in
    turns, one is."""

    def __init__(
        self,
        session: Session,
        models: Mapping[str, Model],
        client: Client,
        cluster: Cluster,
        timing: Timing = Timing(),
    ) -> None:
        self._runtime, self._engines = session.runtime, session.runtime.engines
        turns = self._engines.schedule == "by-turns"
        self.capacity = 1 if turns and len(models) > 1 else None
        self._names, self._models = names.by_dns(models), models
        self._client, self._cluster, self._timing = client, cluster, timing
        self._ledger, self._progress = session.ledger, session.progress
        self._leases = LeaseHolder(cluster, session.ledger, session.progress, timing)
        self._replacing = PodReplacer(cluster, session.ledger, session.progress)
        self._up: dict[str, Leased] = {}
        self._noted = False
        self._changed = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.view = ClusterView(cluster, self._names, self._wake, timing.outage_s)
        self._tasks: list[asyncio.Task[None]] = []

    async def open(self) -> None:
        """Read the namespace and start to watch it. Raises ClusterError if the cluster cannot be
        reached or a right is missing."""
        await self.view.open()
        self._tasks = [
            asyncio.create_task(each)
            for each in (self._watch(), self._renew(), self._read_events())
        ]
        for task in self._tasks:
            task.add_done_callback(self._task_ended)

    @property
    def absent(self) -> set[str]:
        """Return the models that no Deployment of the namespace serves."""
        return {model for dns, model in self._names.items() if not self.view.deployments_of(dns)}

    async def up(self, models: Collection[str]) -> None:
        """Lease the models that are not up, in parallel; return when a pod of each has answered.

        Further pods join later. Raises EngineError with the pod's own reason if one does not answer
        within `start_timeout_s` (or the time of its Deployment), or if its pods restart too often.
        """
        wanted = [
            name
            for name in dict.fromkeys(models)
            if name in self._names.values() and name not in self._up
        ]
        if not wanted:
            return
        with self._ledger.timed("engines"):
            try:
                for name in wanted:
                    self._up[name] = self._leased(name)
                await together(self._leases.take(self._up[name]) for name in wanted)
                await together(self._up[name].first_answer() for name in wanted)
            except BaseException:
                await self.down(wanted)
                raise

    async def down(self, models: Collection[str]) -> None:
        """Release these models: they get no more calls,
        and those without another lease are scaled down."""
        given = [self._up.pop(name) for name in models if name in self._up]
        for leased in given:
            leased.close()
            self._withdraw(leased, list(leased.endpoints))
        await asyncio.gather(
            *(
                self._leases.release(leased, self.view.deployment(leased.deployment))
                for leased in given
            )
        )
        self._note()

    async def close(self) -> None:
        """Release all models. The leases come first: a terminated pod has only 0.2 s."""
        await self.down(list(self._up))
        for task in self._tasks:
            task.cancel()
        self.view.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _leased(self, model: str) -> Leased:
        found, namespace = self.view.deployments_of(names.dns(model)), self._cluster.namespace
        if not found:
            raise EngineError(no_deployment([model], namespace))
        if len(found) > 1:
            raise EngineError(
                f"model '{model}' is served by {len(found)} Deployments in namespace "
                f"'{namespace}' ({', '.join(found)}). Keep one, or give each release its own "
                "namespace."
            )
        leased = Leased(model, found[0], self._models[model].task)
        leased.count_restarts(self.view.pods_of(model), baseline=True)
        return leased

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(self._timing.renew_every_s)
            await asyncio.gather(*(self._renew_one(leased) for leased in list(self._up.values())))

    async def _renew_one(self, leased: Leased) -> None:
        try:
            await self._leases.renew(leased)
        except (Unreachable, Conflict) as error:
            self._ledger.events["lease renewals missed"] += 1
            self._progress.note(f"the lease of {leased.model} could not be renewed: {error}")
        except MoaaError as error:
            self._give_up(
                leased, f"the lease of model '{leased.model}' could not be renewed: {error}"
            )

    # Pods and their addresses.

    def _wake(self) -> None:
        with suppress(RuntimeError):  # the loop is closed, and a mirror's thread still runs
            self._loop.call_soon_threadsafe(self._changed.set)

    async def _watch(self) -> None:
        while True:
            # Not `wait_for`: it can take a cancellation for a result.
            with suppress(TimeoutError):
                async with asyncio.timeout(self._timing.look_every_s):
                    await self._changed.wait()
            self._changed.clear()
            for leased in list(self._up.values()):
                if (error := self.view.error) is not None:
                    self._give_up(
                        leased, f"model '{leased.model}' can no longer be watched: {error}"
                    )
                self._look(leased)
            self._note()

    def _look(self, leased: Leased) -> None:
        """Make the pool match the pods that are ready. Give the model up if it took too long or
        restarted too often."""
        ready = self.view.addresses_of(leased.model)
        self._withdraw(leased, [url for url in leased.endpoints if url not in ready])
        leased.forget([url for url in leased.probes if url not in ready])
        for url in ready:
            if url not in leased.probes:
                leased.probes[url] = asyncio.create_task(self._admit(leased, url))
        if restarts := leased.count_restarts(self.view.pods_of(leased.model)):
            self._ledger.events["engine restarts"] += restarts
        if leased.endpoints or leased.failure or leased.diagnosis_task:
            return
        if problem := self._over_limit(leased):
            leased.diagnosis_task = asyncio.create_task(self._diagnose(leased, problem))

    def _over_limit(self, leased: Leased) -> str:
        """Return in words which limit the model has passed; empty if none."""
        most = self._engines.max_restarts
        if leased.restarts > most:
            return (
                f"was started again {leased.restarts} times (runtime.engines.max_restarts: {most})"
            )
        budget_s, source = self._budget(leased)
        if time.monotonic() - leased.without_since > budget_s:
            return f"had no pod that answers for {budget_s:.0f} s ({source})"
        return ""

    def _budget(self, leased: Leased) -> tuple[float, str]:
        return start_budget(self._engines, self.view.deployment(leased.deployment))

    async def _admit(self, leased: Leased, url: str) -> None:
        """Put the pod into the pool once it has answered. If it hangs, delete it."""
        endpoint = Endpoint(
            url=url,
            model=leased.model,
            task=leased.task,
            key=os.environ.get(names.ENGINES_KEY) or None,
            kept=True,
            places=places_of(self._runtime, self.view.deployment(leased.deployment)),
        )
        try:
            await self._client.answers(endpoint, leased.model, self._budget(leased)[0])
        except EngineError as error:
            self._ledger.events["engine pods that did not answer"] += 1
            if not leased.endpoints:
                where = "" if self._cluster.inside else OUTSIDE
                self._give_up(
                    leased, f"Deployment {leased.deployment} is ready, but {error}{where}"
                )
            return
        leased.add(url, endpoint)
        self._client.pool(leased.model).add(endpoint)
        self._note()
        await endpoint.lost.wait()
        pod = self.view.addresses_of(leased.model).get(url, "")
        self._withdraw(leased, [url])
        # Shielded: the watch may show that the pod is gone, and end this task, before the deletion
        # is answered. It counts all the same.
        if not await asyncio.shield(self._replacing.replace(leased, pod, endpoint.why_lost)):
            await self._admit(leased, url)

    def _withdraw(self, leased: Leased, gone: Collection[str]) -> None:
        for url in gone:
            self._client.pool(leased.model).remove(leased.remove(url))
            if not leased.closed:
                self._ledger.events["engine pods lost"] += 1

    async def _diagnose(self, leased: Leased, problem: str) -> None:
        found = self.view.pods_of(leased.model)
        text = await asyncio.to_thread(
            diagnosis, self._cluster, leased.deployment, self._state(leased), found
        )
        self._give_up(leased, f"model '{leased.model}' {problem}. {text}")

    def _give_up(self, leased: Leased, reason: str) -> None:
        if leased.failure is None:
            self._ledger.events["engines given up"] += 1
            error = EngineError(reason)
            leased.fail(error)
            self._client.pool(leased.model).fail(error)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """After a bug in one of our tasks, fail the waiting calls: else they never end."""
        if not task.cancelled() and (bug := task.exception()):
            for leased in self._up.values():
                self._give_up(leased, f"model '{leased.model}' is no longer watched: {bug!r}")

    # Notes for the progress view.

    def _note(self) -> None:
        idle = [each for each in self._up.values() if not each.endpoints and not each.failure]
        if idle or self._noted:
            waiting = "; ".join(f"{each.model}: {self._state(each)}" for each in idle)
            self._progress.note(f"waiting for {waiting}" if idle else "")
        self._noted = bool(idle)

    def _state(self, leased: Leased) -> str:
        deployment = self.view.deployment(leased.deployment)
        if deployment is None:
            return f"Deployment {leased.deployment} was deleted"
        where = "" if self._cluster.inside else OUTSIDE
        asking = f" at {', '.join(sorted(leased.probes))}{where}" if leased.probes else ""
        return state(deployment, self.view.pods_of(leased.model), self.view.events, asking=asking)

    async def _read_events(self) -> None:
        while True:
            await asyncio.sleep(self._timing.events_every_s)
            for leased in list(self._up.values()):
                if not leased.endpoints:
                    await self.view.read_events(leased.model)
