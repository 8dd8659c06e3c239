"""A run without Kubeflow: one Job on the cluster runs the pipeline; the terminal shows its log.

start     create the Job and follow it
create    only create it
follow    print its log until it is over; after Ctrl-C the run continues
stop      stop it, and give back what it holds
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Collection
from typing import Any

from moaa import home, records
from moaa.errors import ClusterError, MoaaError
from moaa.kubernetes import pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Forbidden, NotFound, Unreachable
from moaa.kubernetes.kinds import JOBS, PODS
from moaa.kubernetes.logs import Log
from moaa.pipelines import runner_job
from moaa.pipelines.outcome import RunFailed
from moaa.progress.terminal import out
from moaa.recipe.load import Loaded, load_text
from moaa.stages.report import give_back
from moaa.store import Missing, Store

POLL_S = 2.0
PATIENCE_S = 600.0
"""How long the cluster may fail to answer while a run is followed."""
LAST_LINES = 200
"""The last lines of the log, in which the error of a failed run is looked for."""


def start(
    loaded: Loaded, work: runner_job.Work, namespace: str | None = None, run_id: str = ""
) -> None:
    """Do this work on the recipe in a Job, and follow it.

    Raises RunFailed with the failed stage's own error, ClusterError if the Job cannot be created.
    """
    cluster = connect(loaded, namespace)
    follow(create(loaded, work, cluster, run_id), cluster)


def create(loaded: Loaded, work: runner_job.Work, cluster: Cluster, run_id: str = "") -> str:
    """Create the Job; return the run's id, a new one if none is given. Raises ClusterError."""
    run_id = run_id or home.new_id(loaded.recipe.name)
    cluster.create(JOBS, runner_job.job(loaded, run_id, work))
    home.remember(run_id, loaded.recipe.store.model_dump(exclude_defaults=True))
    out(f"run     {run_id}   (Job in namespace {cluster.namespace})")
    out(
        f"report  {loaded.recipe.store.root.rstrip('/')}/runs/{run_id}/report.html   (when the "
        "run is over)"
    )
    return run_id


def connect(loaded: Loaded | None = None, namespace: str | None = None) -> Cluster:
    """Return the cluster of this namespace, else the recipe's, else the context's."""
    return Cluster.connect(
        namespace or (loaded.recipe.runtime.cluster.namespace if loaded else None)
    )


def follow(run_id: str, cluster: Cluster) -> None:
    """Print the run's log from its start until the run is over.

    Raises RunFailed unless it succeeded.
    """
    found = _job(run_id, cluster)
    loaded = load_text(runner_job.recipe_of(found))
    try:
        printed = _Logs(cluster, run_id).follow()
    except KeyboardInterrupt:
        options = f" --namespace {cluster.namespace}"
        out(
            "\nThe run continues; only this terminal stopped watching.\n"
            f"follow it: moaa run --follow {run_id}{options}\n"
            f"stop it:   moaa run --stop {run_id}{options}"
        )
        raise SystemExit(130) from None
    _conclude(loaded, run_id, cluster, printed)


def stop(run_id: str, cluster: Cluster) -> None:
    """Stop the run and give back what it holds.

    Finished stages and answers stay: the same recipe continues from there.
    """
    recipe = load_text(runner_job.recipe_of(_job(run_id, cluster))).recipe
    cluster.delete(JOBS, run_id)
    deadline = time.monotonic() + runner_job.GRACE_S + 30
    while cluster.list(PODS, f"job-name={run_id}") and time.monotonic() < deadline:
        time.sleep(POLL_S)
    give_back(recipe, run_id, cluster)
    out(f"stopped {run_id}; the same recipe continues from there")


class _Logs:
    """The logs of a run's pods, one after the other, on standard output."""

    def __init__(self, cluster: Cluster, run_id: str) -> None:
        self._cluster, self._run_id = cluster, run_id
        self._last: deque[str] = deque(maxlen=LAST_LINES)
        self._waited = ""
        self._pod = ""
        self._log: Log | None = None
        self._answered = time.monotonic()

    def follow(self) -> Collection[str]:
        """Print until the Job is over; return the last lines that were printed."""
        while True:
            try:
                job = _job(self._run_id, self._cluster)
                self._look()
                self._answered = time.monotonic()
            except Unreachable as error:
                if time.monotonic() - self._answered > PATIENCE_S:
                    raise ClusterError(
                        f"{error}\nThe run continues; only this terminal stopped watching."
                    ) from None
            else:
                if pods.ended(job):
                    return self._last
            time.sleep(POLL_S)

    def _look(self) -> None:
        """Print the new lines of the newest pod's log, or what the pod waits for."""
        found = self._cluster.list(PODS, f"job-name={self._run_id}")
        if not found:
            events = pods.latest_events(self._cluster.events(self._run_id), most=1)
            self._wait(f"no pod yet{': ' + events[-1] if events else ''}")
            return
        pod = max(found, key=lambda each: each["metadata"]["creationTimestamp"])
        name = pod["metadata"]["name"]
        if name != self._pod:
            if self._pod:
                out(f"(pod {self._pod} is gone: {_why(found, self._pod)}; {name} continues)")
            self._pod = name
            self._log = Log(self._cluster, name, runner_job.CONTAINER)
        if self._log and pods.started(pod):
            with contextlib.suppress(NotFound):  # deleted between two looks
                self._print(self._log)
        else:
            events = pods.latest_events(self._cluster.events(name), most=1)
            self._wait(
                f"pod {name}: {pods.waits_for(pod, time.time(), events[-1] if events else '')}"
            )

    def _wait(self, why: str) -> None:
        if why != self._waited:
            out(f"waits: {why}")
            self._waited = why

    def _print(self, log: Log) -> None:
        for text in log.read():
            self._answered = time.monotonic()
            out(text)
            if text.strip():
                self._last.append(text)


def _conclude(loaded: Loaded, run_id: str, cluster: Cluster, printed: Collection[str]) -> None:
    """Copy the report, if the store can be reached from here. Raise the error of a failed run,
    unless it was `printed` as part of the log."""
    store, page = Store.of(loaded.recipe.store), home.HOME / "runs" / run_id / "report.html"
    address = f"{store.root}/runs/{run_id}/report.html"
    failure, reached = "", True
    try:
        page.parent.mkdir(parents=True, exist_ok=True)
        store.download(address, page)
        out(f"report: {address}, copied to {page}")
    except MoaaError as error:
        reached = isinstance(error, Missing)
        out(f"report: {address}   (not copied here: {error})")
    if reached:
        with contextlib.suppress(MoaaError):
            failure = records.failure(records.read(store, run_id))
    job = _job(run_id, cluster)
    condition = pods.ended(job)
    if condition["type"] == "Complete":
        return
    if failure and all(line in printed for line in failure.splitlines()):
        raise RunFailed(f"{run_id} failed; the log above ends with the error")
    why = [condition.get("message") or condition.get("reason", ""), _death(run_id, cluster)]
    raise RunFailed(failure or "\n".join(filter(None, why)) or f"the run {run_id} failed")


def _job(run_id: str, cluster: Cluster) -> dict[str, Any]:
    try:
        found = cluster.get(JOBS, run_id)
    except NotFound:
        raise RunFailed(
            f"there is no run '{run_id}' in namespace '{cluster.namespace}': it was stopped, or "
            "is called otherwise. "
            f"kubectl get jobs -n {cluster.namespace} -l "
            f"{runner_job.COMPONENT}={runner_job.CONTAINER} lists the runs."
        ) from None
    if runner_job.RECIPE not in (found["spec"]["template"]["metadata"].get("annotations") or {}):
        raise RunFailed(
            f"the Job '{run_id}' is not a run of ours: it has no recipe. Name one that "
            "`--in-cluster` started."
        )
    return found


def _why(found: list[dict[str, Any]], name: str) -> str:
    return (
        next(
            (pods.death(each, message=False) for each in found if each["metadata"]["name"] == name),
            "",
        )
        or "deleted"
    )


def _death(run_id: str, cluster: Cluster) -> str:
    try:
        found = cluster.list(PODS, f"job-name={run_id}")
    except (Forbidden, Unreachable):
        return ""
    newest = max(found, key=lambda each: each["metadata"]["creationTimestamp"], default=None)
    return pods.death(newest, message=False) if newest else ""  # its log was already printed
