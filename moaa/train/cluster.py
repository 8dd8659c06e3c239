"""A training on Kubernetes: creates it, or finds it again, and follows it to its end.

Its name follows from the fingerprint, so that a launcher finds the training of a killed launcher.
There is a lease on it (`lease`), so that a training without a launcher is deleted. Nothing is lost
by that: the next one continues from the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import threading
from types import TracebackType
from typing import Final, Self

from moaa.errors import TrainError
from moaa.kubernetes import names, pods
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.discovery import knows
from moaa.kubernetes.errors import Conflict
from moaa.kubernetes.kinds import JOBS, SERVICES, TRAIN_JOBS, Object
from moaa.kubernetes.mirror import Mirror
from moaa.kubernetes.transport import OUTAGE_S
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.train import objects
from moaa.train.failure import PodLost, TrainingDeleted
from moaa.train.job import Launch
from moaa.train.lease import LeasedTraining
from moaa.train.log_reader import ShownProgress
from moaa.train.pod_watch import PodWatch, Timing

MAX_LOST_PODS: Final = 3
"""How many times a training is started again because a pod, or all of it, was removed."""
_TIMING: Final = Timing()


def start(launch: Launch, ledger: Ledger, progress: Progress, timing: Timing = _TIMING) -> None:
    """Train as a TrainJob, or as an Indexed Job if the recipe says so or if Trainer is not
    installed.

    Raises the reason if the training failed.
    """
    cluster = Cluster.connect(launch.runtime.cluster.namespace, patience_s=OUTAGE_S)
    kind = TRAIN_JOBS if launch.launcher.kind == "trainer" else JOBS
    if kind is TRAIN_JOBS and not knows(cluster, TRAIN_JOBS):
        kind = JOBS
        ledger.events["trained as an Indexed Job: Kubeflow Trainer is not installed"] += 1
    make = objects.train_job if kind is TRAIN_JOBS else objects.indexed_job
    body = make(launch, os.environ.get(names.RUN_ENV, "by-hand"))
    shown = ShownProgress()
    for lost in range(MAX_LOST_PODS + 1):
        leased = LeasedTraining(cluster, kind, body, ledger, progress, timing.poll_s)
        try:
            with ClusterTraining(leased, shown, timing) as training:
                training.follow()
            return
        except PodLost as error:
            if lost == MAX_LOST_PODS:
                raise TrainError(
                    f"{error}\n  This happened {lost + 1} times, so the training was given up. "
                    "Run again to continue from the newest checkpoint."
                ) from None
            ledger.events[error.event] += 1
            progress.note(f"{error} Started again from the newest checkpoint")


class ClusterTraining:
    """A TrainJob or Job while we wait for it.

    Leaving the context early deletes it, unless another launcher waits for it too.
    """

    def __init__(self, leased: LeasedTraining, shown: ShownProgress, timing: Timing) -> None:
        self._leased, self._poll_s = leased, timing.poll_s
        self._changed = threading.Event()
        self._failed = False
        """Whether the training itself failed: then it stays, so that people can look at it."""
        selector = f"{names.TRAINING}={leased.name}"
        self._mirror = Mirror(leased.cluster, leased.kind, selector, self._changed.set)
        self._pods = PodWatch(leased, shown, self._changed.set, timing)

    def __enter__(self) -> Self:
        try:
            found = self._leased.begin()
            if self._leased.kind is JOBS and self._leased.body["spec"]["completions"] > 1:
                with contextlib.suppress(Conflict):  # an earlier launcher created it
                    self._leased.cluster.create(SERVICES, objects.service(found))
            self._mirror.start()
            self._pods.start(created=found["metadata"].get("creationTimestamp", ""))
            self._leased.renew(failed=self._changed.set)
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
        self._leave(cancel=not self._failed)

    def follow(self) -> None:
        """Wait until the training is complete. Raises the reason if it failed: a TrainError, or the
        error that a rank reported."""
        condition: Object = {}
        while not condition:
            self._changed.wait(self._poll_s)
            self._changed.clear()
            for problem in (self._leased.failure, self._mirror.error, self._pods.error):
                if problem:
                    raise problem
            self._pods.look()
            found = self._mirror.objects.get(self._leased.name)
            if found is None or found["metadata"].get("deletionTimestamp"):
                raise TrainingDeleted(
                    f"{self._leased.what} was deleted while it trained, by the reaper or by hand."
                )
            condition = dict(pods.ended(found))
        self._pods.wait_for_end()
        if condition["type"] == "Failed":
            error = self._pods.explain(condition)
            self._failed = not isinstance(error, PodLost)
            raise error

    def _leave(self, *, cancel: bool) -> None:
        self._pods.stop()
        self._mirror.stop()
        self._leased.leave(self._mirror.objects.get(self._leased.name), cancel=cancel)
