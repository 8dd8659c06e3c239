"""Watches the pods of a running training: reads their logs, shows what they wait for, explains
their failure."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from moaa.errors import ClusterError, MoaaError, TrainError
from moaa.kubernetes import pods
from moaa.kubernetes.errors import Unreachable
from moaa.kubernetes.kinds import PODS, Object
from moaa.kubernetes.logs import Log
from moaa.kubernetes.mirror import Mirror
from moaa.train import objects
from moaa.train.failure import cannot_start, explain_failure, has_ended
from moaa.train.lease import LeasedTraining
from moaa.train.log_reader import LogReader, ShownProgress


@dataclass(frozen=True, slots=True)
class Timing:
    """How long a launcher waits, in seconds."""

    poll_s: float = 1.0
    """The time between two looks if nothing changes."""
    events_s: float = 5.0
    """The time between two requests for a waiting pod's events."""
    cannot_start_s: float = 300.0
    """For a container that cannot start (image, Secret).
    The wait for room on a node has no limit."""
    end_wait_s: float = 10.0
    """For logs and pod states that arrive after the end of the training."""


class PodWatch:
    """What is known about a training's pods, also about removed ones."""

    def __init__(
        self,
        training: LeasedTraining,
        shown: ShownProgress,
        changed: Callable[[], Any],
        timing: Timing,
    ) -> None:
        self._training, self._shown, self._timing = training, shown, timing
        self._cluster, self._progress = training.cluster, training.progress
        self._mirror = Mirror(
            training.cluster, PODS, training.pods, changed, deleted=self._remember_deleted
        )
        self._stopped = threading.Event()
        self._created = ""
        """When the training was created."""
        self._seen: dict[str, Object] = {}
        """Pods by uid, as last seen: those of a failed training can vanish."""
        self._deleted: dict[str, Object] = {}
        """Pods by uid, in their state when they were deleted."""
        self._vanished: set[str] = set()
        """Uids of pods that disappeared before they had ended."""
        self._logs: dict[str, LogReader] = {}
        self._log_threads: list[threading.Thread] = []
        self._cannot_start_since: dict[str, float] = {}
        self._waits_for, self._event, self._events_read_at = "", "", 0.0

    def start(self, created: str) -> None:
        """Start to watch. `created`: when the training was created, in Kubernetes' form."""
        self._created = created
        self._mirror.start()

    def stop(self) -> None:
        """Stop watching, and stop reading logs."""
        self._stopped.set()
        self._mirror.stop()

    @property
    def error(self) -> BaseException | None:
        """Why the pods can no longer be watched."""
        return self._mirror.error

    def look(self, now: Sequence[Object] | None = None) -> None:
        """Look at the pods (`now`, or the watched ones): read the logs of started pods, and show
        what the others wait for.

        Raises TrainError if a pod cannot start.
        """
        if now is None:
            now = list(self._mirror.objects.values())
        present = {pod["metadata"]["uid"]: pod for pod in now}
        self._seen |= present | self._deleted
        self._vanished |= {
            uid for uid, pod in self._seen.items() if uid not in present and not has_ended(pod)
        }
        for uid, pod in list(self._seen.items()):
            if uid not in self._logs and pods.started(pod):
                self._logs[uid] = LogReader(self._progress, shown=self._shown)
                thread = threading.Thread(
                    target=self._read_log, args=(uid,), name="log of a rank", daemon=True
                )
                thread.start()
                self._log_threads.append(thread)
        waiting = [pod for pod in now if not has_ended(pod) and not pods.started(pod)]
        if waiting or not now:
            self._show_waiting(waiting)
        self._refuse_what_cannot_start(waiting)

    def wait_for_end(self) -> None:
        """Wait until all pods have ended and their logs are read."""
        deadline = time.monotonic() + self._timing.end_wait_s
        while time.monotonic() < deadline:
            # The watch of the pods may be later than that of the training.
            self.look(self._cluster.list(PODS, self._training.pods))
            running = [
                uid
                for uid, pod in self._seen.items()
                if uid not in self._vanished and not has_ended(pod)
            ]
            if not running and not any(thread.is_alive() for thread in self._log_threads):
                return
            time.sleep(min(self._timing.poll_s, 0.5))

    def explain(self, condition: Object) -> MoaaError:
        """Return the error of the training that ended with this condition."""
        return explain_failure(
            self._training.what,
            list(self._seen.values()),
            self._vanished,
            self._logs,
            ": ".join(filter(None, (condition.get("reason"), condition.get("message")))),
            f"kubectl -n {self._cluster.namespace} logs ",
        )

    def _remember_deleted(self, pod: Object) -> None:
        self._deleted[pod["metadata"]["uid"]] = pod

    def _show_waiting(self, waiting: Sequence[Object]) -> None:
        name = waiting[0]["metadata"]["name"] if waiting else self._training.name
        if name != self._waits_for:
            self._waits_for, self._event, self._events_read_at = name, "", 0.0
        if time.monotonic() - self._events_read_at > self._timing.events_s:
            self._events_read_at = time.monotonic()
            with contextlib.suppress(ClusterError):
                self._event = next(iter(pods.latest_events(self._events_of(name), most=1)), "")
        events = {self._waits_for: self._event}
        states = [
            pods.waits_for(pod, time.time(), events.get(pod["metadata"]["name"], ""))
            for pod in waiting
        ]
        no_pod = f"no pod yet{': ' + self._event if self._event else ''}"
        self._progress.note(
            f"{self._training.name}: {pods.summary(filter(None, states)) or no_pod}"
        )

    def _refuse_what_cannot_start(self, waiting: Sequence[Object]) -> None:
        for pod in waiting:
            if why := cannot_start(pod):
                uid, name = pod["metadata"]["uid"], pod["metadata"]["name"]
                since = self._cannot_start_since.setdefault(uid, time.monotonic())
                if time.monotonic() - since > self._timing.cannot_start_s:
                    raise TrainError(
                        f"{self._training.what} cannot start: pod {name}: {why}. {self._event}"
                    )

    def _events_of(self, name: str) -> list[Object]:
        """Return the events of a pod; if it has none, those of the training and of Trainer's Job
        for it (quota, Pod Security).

        Events of an earlier training of this name are left out.
        """
        found = self._cluster.events(name)
        if name == self._training.name:
            found = found + self._cluster.events(f"{name}-{objects.CONTAINER}-0")
        return [
            event
            for event in found
            if (event.get("lastTimestamp") or event.get("eventTime") or "") >= self._created
        ]

    def _read_log(self, uid: str) -> None:
        """Read a pod's log to its end, or until `stop`."""
        pod, reader = self._seen[uid], self._logs[uid]
        container = pod["spec"]["containers"][0]["name"]
        log = Log(self._cluster, pod["metadata"]["name"], container)
        while True:
            reached = True
            try:
                for line in log.read():
                    reader.read(line)
            except Unreachable:  # try again
                reached = False
            except ClusterError:  # there is no log, or it has ended
                pass
            if reached and (uid in self._vanished or has_ended(self._seen[uid])):
                return
            if self._stopped.wait(self._timing.poll_s):
                return
