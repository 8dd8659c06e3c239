"""A training on Kubernetes: created or found again, leased, followed from its first line, ended
with its true reason.

The name follows from the fingerprint, so that a launcher that was killed finds what it started. It
carries a lease like an engine's: the launcher renews it, and the reaper ends a training that nobody
waits for. What trained until then is not lost: the next one goes on from the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Final, Self

from moaa.errors import ClusterError, TrainError
from moaa.kubernetes import leases, names, pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.discovery import knows
from moaa.kubernetes.errors import Conflict, NotFound, Unreachable
from moaa.kubernetes.kinds import JOBS, PODS, SERVICES, TRAIN_JOBS, Kind, Object
from moaa.kubernetes.logs import Log
from moaa.kubernetes.mirror import Mirror
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe.schema import Pool, Runtime
from moaa.train import failure, objects
from moaa.train.job import Job
from moaa.train.log_reader import Listener, Shown

LOST_PODS: Final = 3
"""So often a training begins again because a pod was taken away."""
LOOK_EVERY_S: Final = 1.0
EVENTS_EVERY_S: Final = 5.0
STUCK_S: Final = 300.0
"""A container that could not be started for so long (image, Secret) is given up. Room on a node is
waited for without end."""
SETTLE_S: Final = 10.0
"""For logs and pod states that arrive after the end."""


def start(
    job: Job, runtime: Runtime, pools: Mapping[str, Pool], ledger: Ledger, progress: Progress
) -> None:
    """Train as a TrainJob; as an Indexed Job where the recipe says so or Trainer is not installed.
    Raises what it failed of."""
    cluster = Cluster.connect(runtime.cluster.namespace)
    kind = TRAIN_JOBS if runtime.launcher.kind == "trainer" else JOBS
    if kind is TRAIN_JOBS and not knows(cluster, TRAIN_JOBS):
        kind = JOBS
        ledger.events["trained as an Indexed Job: Kubeflow Trainer is not installed"] += 1
    make = objects.train_job if kind is TRAIN_JOBS else objects.indexed_job
    body = make(job, runtime, pools, os.environ.get(names.RUN_ENV, "by-hand"))
    shown = Shown()
    for lost in range(LOST_PODS + 1):
        try:
            with Training(cluster, kind, body, ledger, progress, shown) as training:
                training.follow()
            return
        except failure.Lost as error:
            if lost == LOST_PODS:
                raise TrainError(
                    f"{error}\n  That happened {lost + 1} times: given up. Run again to go on "
                    "from there."
                ) from None
            ledger.events["trainings begun again after a pod was lost"] += 1
            progress.note(f"{error} Begun again from the newest checkpoint")


class Training:
    """One TrainJob or Job while we wait for it. Leaving it early ends it, unless another launcher
    waits for it too."""

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        body: Object,
        ledger: Ledger,
        progress: Progress,
        shown: Shown,
    ) -> None:
        self._cluster, self._kind, self._body = cluster, kind, body
        self._ledger, self._progress, self._shown = ledger, progress, shown
        self._name: str = body["metadata"]["name"]
        self._holder = names.holder()
        self._changed = threading.Event()
        self._left = threading.Event()
        self._failure: ClusterError | None = None
        self._held = self._failed = False
        """Whether it may carry our lease; whether it failed by itself."""
        self._seen: dict[str, Object] = {}
        """Pods by uid, as they were last seen: those of a failed training can vanish."""
        self._last: dict[str, Object] = {}
        """As they were when they were deleted."""
        self._gone: set[str] = set()
        self._stuck_since: dict[str, float] = {}
        self._heard: dict[str, Listener] = {}
        self._tellers: list[threading.Thread] = []
        label = (
            "jobset.sigs.k8s.io/jobset-name"
            if kind is TRAIN_JOBS
            else "batch.kubernetes.io/job-name"
        )
        self._of_ours = f"{label}={self._name}"
        self._objects = Mirror(cluster, kind, f"{names.TRAINING}={self._name}", self._changed.set)
        self._pods = Mirror(cluster, PODS, self._of_ours, self._changed.set, deleted=self._deleted)
        self._about, self._event, self._events_read = "", "", 0.0

    def __enter__(self) -> Self:
        try:
            found = self._begin()
            if self._kind is JOBS and self._body["spec"]["completions"] > 1:
                with contextlib.suppress(Conflict):  # a launcher before us made it
                    self._cluster.create(SERVICES, objects.service(found))
            self._objects.start()
            self._pods.start()
            threading.Thread(target=self._renew, name="lease of the training", daemon=True).start()
        except BaseException:
            self._leave(cancel=True)
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # One that failed by itself stays to be looked at.
        self._leave(cancel=not self._failed)

    def follow(self) -> None:
        """Returns when it is complete. Raises the reason for which it failed: a TrainError, or what
        a rank said."""
        condition: Object = {}
        while not condition:
            self._changed.wait(LOOK_EVERY_S)
            self._changed.clear()
            for problem in (self._failure, self._objects.error, self._pods.error):
                if problem:
                    raise problem
            self._look(list(self._pods.objects.values()))
            found = self._objects.objects.get(self._name)
            if found is None or found["metadata"].get("deletionTimestamp"):
                raise TrainError(
                    f"{self._what} was deleted while it trained, by the reaper or by hand. Run "
                    "again to go on from the newest "
                    "checkpoint."
                )
            condition = dict(pods.ended(found))
        self._settle()
        if condition["type"] == "Failed":
            said = ": ".join(filter(None, (condition.get("reason"), condition.get("message"))))
            logs = f"kubectl -n {self._cluster.namespace} logs "
            error = failure.error(
                self._what, list(self._seen.values()), self._gone, self._heard, said, logs
            )
            self._failed = not isinstance(error, failure.Lost)
            raise error

    @property
    def _what(self) -> str:
        return f"{self._kind.name} {self._name} in namespace '{self._cluster.namespace}'"

    # The object.

    def _begin(self) -> Object:
        """The one that an earlier launcher left at work, with a lease of ours on it; or a new one,
        in nobody's place."""
        while True:
            with contextlib.suppress(Conflict):  # another launcher was faster
                try:
                    found = self._cluster.get(self._kind, self._name)
                except NotFound:
                    # Before its JobSet and pods are gone too, a new one would take the old one's
                    # failure for its own.
                    if not self._cluster.list(PODS, self._of_ours):
                        return self._create()
                else:
                    if found["metadata"].get("deletionTimestamp"):
                        pass
                    elif pods.ended(found) or self._outdated(found):
                        self._cluster.delete(self._kind, self._name, seen=found)
                    else:
                        with contextlib.suppress(NotFound):
                            self._held = True
                            self._cluster.update(self._kind, self._name, self._leased, known=found)
                            self._ledger.events["trainings found at work"] += 1
                            self._progress.note(f"goes on with {self._what}, which is at work")
                            return found
                self._progress.note(
                    f"waits for the last {self._kind.name} {self._name} and its pods to be gone"
                )
                time.sleep(LOOK_EVERY_S)

    def _create(self) -> Object:
        metadata = self._body["metadata"]
        annotations = {**metadata["annotations"], **leases.add({}, self._holder, time.time())}
        self._held = True
        try:
            return self._cluster.create(
                self._kind, {**self._body, "metadata": {**metadata, "annotations": annotations}}
            )
        except ClusterError as error:
            self._held = False
            if isinstance(error, Conflict) or "untime" not in str(error):
                raise
            raise ClusterError(
                f"{error}\n  The platform chart makes the TrainingRuntimes, one for each pool: "
                "moaa recipe helm-values RECIPE --chart platform"
            ) from None

    def _outdated(self, found: Object) -> bool:
        """Whether something else was asked for (another image, fewer ranks), and nobody waits for
        that any more."""
        annotations = found["metadata"].get("annotations") or {}
        digest = annotations.get(names.DIGEST) or annotations.get(names.OLD_DIGEST)
        wanted = self._body["metadata"]["annotations"][names.DIGEST]
        return digest != wanted and not leases.live(annotations, time.time())

    def _leased(self, found: Object) -> Object:
        annotations = found["metadata"].get("annotations") or {}
        return {"metadata": {"annotations": leases.add(annotations, self._holder, time.time())}}

    def _renew(self) -> None:
        while not self._left.wait(leases.RENEW_EVERY_S):
            try:
                self._cluster.update(
                    self._kind, self._name, self._leased, retry_s=leases.RENEW_EVERY_S
                )
            except NotFound:  # `follow` says so
                pass
            except (Unreachable, Conflict) as error:
                self._ledger.events["lease renewals missed"] += 1
                self._progress.note(f"the lease of {self._name} could not be renewed: {error}")
            except ClusterError as error:
                self._failure = error
                self._changed.set()
                return

    def _leave(self, *, cancel: bool) -> None:
        """One request, or three where it was changed: a stage that is told to end has a fifth of a
        second.

        What it leaves undone, the reaper does.
        """
        self._left.set()
        self._objects.stop()
        self._pods.stop()
        if not self._held:
            return
        with contextlib.suppress(ClusterError):
            try:
                self._part(self._objects.objects.get(self._name) or self._object(), cancel)
            except Conflict:  # changed since; perhaps another launcher waits for it now
                self._part(self._object(), cancel)

    def _part(self, found: Object, cancel: bool) -> None:
        if cancel and not self._others(found):
            self._cluster.delete(self._kind, self._name, seen=found, retry_s=0)
        else:
            self._cluster.update(self._kind, self._name, self._released, known=found, retry_s=5)

    def _object(self) -> Object:
        return self._cluster.get(self._kind, self._name, retry_s=0)

    def _others(self, found: Object) -> set[str]:
        """Who else waits for it."""
        return leases.live(found["metadata"].get("annotations") or {}, time.time()).keys() - {
            self._holder
        }

    def _released(self, found: Object) -> Object:
        """Without leases it is nobody's: the reaper leaves it, and the next launcher replaces it
        when it has ended."""
        if not self._others(found):
            return {"metadata": {"annotations": {names.LEASES: None}}}
        annotations = found["metadata"].get("annotations") or {}
        return {"metadata": {"annotations": leases.release(annotations, self._holder, time.time())}}

    # Its pods.

    def _look(self, now: Sequence[Object]) -> None:
        """Take in the pods, listen to those that began, say what is waited for. Raises TrainError
        for one that never starts."""
        here = {pod["metadata"]["uid"]: pod for pod in now}
        self._seen |= here | self._last
        self._gone |= {
            uid for uid, pod in self._seen.items() if uid not in here and not failure.over(pod)
        }
        for uid, pod in list(self._seen.items()):
            if uid not in self._heard and pods.started(pod):
                self._heard[uid] = Listener(self._progress, shown=self._shown)
                teller = threading.Thread(
                    target=self._tell,
                    args=(uid, self._heard[uid]),
                    name="log of a rank",
                    daemon=True,
                )
                teller.start()
                self._tellers.append(teller)
        waiting = [pod for pod in now if not failure.over(pod) and not pods.started(pod)]
        if waiting or not now:
            self._say_what_is_missing(waiting)

    def _deleted(self, pod: Object) -> None:
        self._last[pod["metadata"]["uid"]] = pod

    def _say_what_is_missing(self, waiting: list[Object]) -> None:
        about = waiting[0]["metadata"]["name"] if waiting else self._name
        if about != self._about:
            self._about, self._event, self._events_read = about, "", 0.0
        if time.monotonic() - self._events_read > EVENTS_EVERY_S:
            self._events_read = time.monotonic()
            with contextlib.suppress(ClusterError):
                self._event = next(iter(pods.latest_events(self._events_of(about), most=1)), "")
        states = [pods.waits_for(pod, time.time(), self._event) for pod in waiting]
        note = (
            pods.summary(filter(None, states))
            or f"no pod yet{': ' + self._event if self._event else ''}"
        )
        self._progress.note(f"{self._name}: {note}")
        for pod in waiting:
            if why := failure.stuck(pod):
                since = self._stuck_since.setdefault(pod["metadata"]["uid"], time.monotonic())
                if time.monotonic() - since > STUCK_S:
                    raise TrainError(
                        f"{self._what} cannot start: pod {pod['metadata']['name']}: {why}. "
                        f"{self._event}"
                    )

    def _events_of(self, name: str) -> list[Object]:
        """Of a pod; of the objects between the training and its pods, where there is none (quota,
        Pod Security).

        Those of an earlier training of this name are not told.
        """
        born = (
            self._objects.objects.get(self._name, {})
            .get("metadata", {})
            .get("creationTimestamp", "")
        )
        found = self._cluster.events(name) + (
            self._cluster.events(f"{name}-{objects.CONTAINER}-0") if name == self._name else []
        )
        return [
            event
            for event in found
            if (event.get("lastTimestamp") or event.get("eventTime") or "") >= born
        ]

    def _tell(self, uid: str, listener: Listener) -> None:
        """A pod's log, line by line, to its end or ours."""
        pod = self._seen[uid]
        container = pod["spec"]["containers"][0]["name"]
        log = Log(self._cluster, pod["metadata"]["name"], container)
        while True:
            reached = True
            try:
                for line in log.read():
                    listener.line(line)
            except Unreachable:  # it comes back
                reached = False
            except ClusterError:  # there is no log, or no more
                pass
            if reached and (uid in self._gone or failure.over(self._seen[uid])):
                return
            if self._left.wait(LOOK_EVERY_S):
                return

    def _settle(self) -> None:
        """Wait until the pods are seen to have ended and their logs are read."""
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            self._look(
                self._cluster.list(PODS, self._of_ours)
            )  # the watch may lag behind that of the training
            open_pods = [
                uid
                for uid, pod in self._seen.items()
                if uid not in self._gone and not failure.over(pod)
            ]
            if not open_pods and not any(teller.is_alive() for teller in self._tellers):
                return
            time.sleep(min(LOOK_EVERY_S, 0.5))
