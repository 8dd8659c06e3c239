"""A TrainJob or Job on which we hold a lease: created or found, kept while we wait for it, and then
deleted or released.

The reaper deletes a training without a live lease. Several launchers may hold a lease on the same
training; it is deleted only if no other launcher waits for it.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

from moaa.errors import ClusterError
from moaa.kubernetes import leases, names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Conflict, NotFound, Unreachable
from moaa.kubernetes.kinds import PODS, TRAIN_JOBS, Kind, Object
from moaa.kubernetes.pods import ended
from moaa.ledger import Ledger
from moaa.progress import Progress


class LeasedTraining:
    """One TrainJob or Job, and our lease on it."""

    def __init__(
        self,
        cluster: Cluster,
        kind: Kind,
        body: Object,
        ledger: Ledger,
        progress: Progress,
        poll_s: float = 1.0,
    ) -> None:
        self.cluster, self.kind, self.body = cluster, kind, body
        self.ledger, self.progress = ledger, progress
        self.name: str = body["metadata"]["name"]
        self.what = f"{kind.name} {self.name} in namespace '{cluster.namespace}'"
        self.failure: ClusterError | None = None
        """Why the lease can no longer be renewed."""
        self._poll_s = poll_s
        self._holder = names.holder()
        self._lease = leases.Lease(cluster, kind, self.name, self._holder)
        self._left = threading.Event()
        self._held = False
        """Whether a lease of ours may exist."""
        self._observer = leases.Observer()
        self._first_seen: dict[str, leases.State] = {}

    @property
    def pods(self) -> str:
        """The label selector of its pods."""
        of_train_job = self.kind is TRAIN_JOBS
        label = "jobset.sigs.k8s.io/jobset-name" if of_train_job else "batch.kubernetes.io/job-name"
        return f"{label}={self.name}"

    def begin(self) -> Object:
        """Return the training with our lease on it: a running one that an earlier launcher created,
        or a new one."""
        while True:
            # A Conflict: another launcher was faster. Look again.
            with contextlib.suppress(Conflict):
                if (found := self._take_or_create()) is not None:
                    return found
                self.progress.note(
                    f"waits until the last {self.kind.name} {self.name} and its pods are gone"
                )
                time.sleep(self._poll_s)

    def _take_or_create(self) -> Object | None:
        """Return the training; None while the last training of this name still exists."""
        try:
            found = self.cluster.get(self.kind, self.name)
        except NotFound:
            # Its JobSet and pods may still exist: a new training would inherit its failure.
            return None if self.cluster.list(PODS, self.pods) else self._create()
        if found["metadata"].get("deletionTimestamp"):
            return None
        if ended(found):
            self.cluster.delete(self.kind, self.name, seen=found)
            return None
        if self._is_outdated(found) and not (awaited := self._is_awaited()):
            if awaited is False:
                self.cluster.delete(self.kind, self.name, seen=found)
            return None
        self._take()
        try:
            self.cluster.update(self.kind, self.name, self._joined, known=found)
        except NotFound:
            return None
        self.ledger.events["trainings found at work"] += 1
        self.progress.note(f"continues with {self.what}, which is running")
        return found

    def _create(self) -> Object:
        self._take()
        try:
            return self.cluster.create(self.kind, self.body)
        except ClusterError as error:
            if isinstance(error, Conflict | Unreachable) or "untime" not in str(error):
                raise
            raise ClusterError(
                f"{error}\n  The platform chart creates a TrainingRuntime for each pool: "
                "moaa recipe helm-values RECIPE --chart platform"
            ) from None

    def _take(self) -> None:
        """Take the lease. It comes before the training,
        so that the reaper never finds one without it."""
        self._held = True
        self._lease.renew()

    def _is_outdated(self, found: Object) -> bool:
        """Return whether it was created for something else: another image, fewer ranks."""
        annotations = found["metadata"].get("annotations") or {}
        digest = annotations.get(names.DIGEST) or annotations.get(names.OLD_DIGEST)
        return bool(digest != self.body["metadata"]["annotations"][names.DIGEST])

    def _is_awaited(self) -> bool | None:
        """Return whether another launcher waits for it, one that renews its lease.
        None: not known yet."""
        others: dict[str, leases.State] = {}

        def read() -> dict[str, leases.State]:
            others.update(
                {each["metadata"]["name"]: leases.State.of(each) for each in self._lease.others()}
            )
            return others

        dead = self._observer.look(read)
        if any(self._first_seen.setdefault(name, state) != state for name, state in others.items()):
            return True
        return False if dead >= others.keys() else None

    def _joined(self, found: Object) -> Object:
        return {"metadata": {"annotations": {names.JOINED: self._holder}}}

    def renew(self, failed: Callable[[], Any]) -> None:
        """Renew the lease in a thread until `leave`;
        call `failed` once it can no longer be renewed."""

        def loop() -> None:
            while not self._left.wait(leases.RENEW_EVERY_S):
                try:
                    self._renew_once()
                except ClusterError as error:
                    self.failure = error
                    failed()
                    return

        threading.Thread(target=loop, name="lease of the training", daemon=True).start()

    def _renew_once(self) -> None:
        try:
            self._lease.renew(retry_s=leases.RENEW_EVERY_S)
        except (Unreachable, Conflict) as error:
            self.ledger.events["lease renewals missed"] += 1
            self.progress.note(f"the lease of {self.name} could not be renewed: {error}")

    def leave(self, seen: Object | None, *, cancel: bool) -> None:
        """Delete the training if `cancel` and no other launcher waits for it; give back our lease.

        `seen`: the object as last seen. It makes few requests, because a stage that gets SIGTERM
        has 0.2 s. The reaper does the rest.
        """
        self._left.set()
        if not self._held:
            return
        # The training first: without it, a lease that stays behind does no harm.
        if cancel:
            with contextlib.suppress(ClusterError):
                self._cancel(seen)
        with contextlib.suppress(ClusterError):
            self._lease.release(retry_s=5)

    def _cancel(self, seen: Object | None) -> None:
        if self._lease.others(retry_s=0):
            return
        try:
            self._delete(seen or self._get())
        except Conflict:  # it has changed: another launcher may wait for it now
            newest = self._get()
            if not self._lease.others(retry_s=0):
                self._delete(newest)

    def _get(self) -> Object:
        return self.cluster.get(self.kind, self.name, retry_s=0)

    def _delete(self, seen: Object) -> None:
        self.cluster.delete(self.kind, self.name, seen=seen, retry_s=0)
