"""Who uses an engine or a training: one `coordination.k8s.io/Lease` object for each holder.

    lease = Lease(cluster, DEPLOYMENTS, "moaa-smol", names.holder())
    lease.renew()               # taken, or renewed
    if not lease.others(): ...  # nobody else holds it
    lease.release()

A holder renews its lease every RENEW_EVERY_S. No clock shows whether the holder still lives: an
`Observer` watches for LEASE_S whether the object changes.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Self

from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Conflict, NotFound, Unreachable
from moaa.kubernetes.kinds import LEASES, Kind, Object, Objects
from moaa.kubernetes.transport import RETRY_S

LEASE_S: Final = 120.0
RENEW_EVERY_S: Final = 30.0
"""Three renewals may fail before a lease counts as dead."""
MOST_APART_S: Final = 20.0
"""After a longer gap between two looks, an observer starts from the beginning."""
OURS: Final = f"{names.PART_OF}={names.OURS},{names.HOLDS}"
"""Selects all leases."""


class Lease:
    """One holder's lease on one object. Thread-safe."""

    def __init__(
        self, cluster: Cluster, kind: Kind, name: str, holder: str, *, uid: str = ""
    ) -> None:
        """`kind`, `name`: the object. With its `uid` the lease is deleted with it."""
        self._cluster, self._holder = cluster, holder
        owner = {"apiVersion": kind.version, "kind": kind.name, "name": name, "uid": uid}
        self._owner = {"ownerReferences": [owner]} if uid else {}
        self._target = f"{kind.name}/{name}"
        digest = hashlib.sha256(holder.encode()).hexdigest()[:10]
        self.name = f"moaa-{kind.name.lower()}-{name}-{digest}"
        self._lock = threading.Lock()
        self._released = False
        self._seen: Object | None = None

    def renew(
        self, then: Callable[[], object] = lambda: None, *, retry_s: float | None = None
    ) -> None:
        """Take or renew the lease, then call `then`; after `release`, do nothing.

        A release waits until both are done.
        """
        with self._lock:
            if self._released:
                return
            patch = {"spec": {"renewTime": _now(), "holderIdentity": self._holder}}
            try:
                self._seen = self._cluster.patch(LEASES, self.name, patch, retry_s=retry_s)
            except NotFound:  # not taken yet, or removed
                try:
                    self._seen = self._cluster.create(LEASES, self._body(), retry_s=retry_s)
                except Conflict:  # created by an attempt whose answer was lost
                    self._seen = self._cluster.patch(LEASES, self.name, patch, retry_s=retry_s)
            then()

    def release(self, *, shared: bool = False, retry_s: float = RETRY_S) -> None:
        """Give the lease back for good; a renewal in progress is waited for.

        `shared`: other processes hold it under the same name. It is deleted only if this process
        was the last to renew it; otherwise Conflict is raised.
        """
        self._released = True
        if not self._lock.acquire(timeout=max(retry_s, 1.0)):
            raise Unreachable("a renewal of the lease is still in progress")
        try:
            seen = self._seen if shared else None
            self._cluster.delete(LEASES, self.name, seen=seen, retry_s=retry_s)
        finally:
            self._lock.release()

    def others(self, *, retry_s: float | None = None) -> Objects:
        """Return the other leases on the same object, dead ones included."""
        found = on(self._cluster, self._target, retry_s=retry_s)
        return [each for each in found if each["metadata"]["name"] != self.name]

    def _body(self) -> Object:
        run_id, stage, _ = self._holder.rsplit("/", 2)
        labels = {**names.work_labels(run_id, stage), names.HOLDS: _label(self._target)}
        now = _now()
        return {
            "apiVersion": LEASES.version,
            "kind": LEASES.name,
            "metadata": {
                "name": self.name,
                "labels": labels,
                "annotations": {names.HOLDS: self._target},
                **self._owner,
            },
            "spec": {
                "holderIdentity": self._holder,
                "leaseDurationSeconds": int(LEASE_S),
                "acquireTime": now,
                "renewTime": now,
            },
        }


def on(cluster: Cluster, target: str, *, retry_s: float | None = None) -> Objects:
    """Return all leases on an object (`Deployment/moaa-smol`), dead ones included."""
    labels = f"{names.PART_OF}={names.OURS},{names.HOLDS}={_label(target)}"
    return [
        each for each in cluster.list(LEASES, labels, retry_s=retry_s) if target_of(each) == target
    ]


def of_run(cluster: Cluster, run_id: str) -> Objects:
    """Return the leases of a run's stages."""
    found = cluster.list(LEASES, f"{OURS},{names.RUN}={names.label(run_id)}")
    return [each for each in found if holder_of(each).startswith(f"{run_id}/")]


def target_of(lease: Object) -> str:
    """Return what a lease holds, as `Deployment/moaa-smol`."""
    return str((lease["metadata"].get("annotations") or {}).get(names.HOLDS, ""))


def holder_of(lease: Object) -> str:
    """Return who holds a lease."""
    return str(lease["spec"].get("holderIdentity") or "")


@dataclass(frozen=True, slots=True)
class State:
    """What an observer sees of an object, and for how long it may stay unchanged."""

    seen: str
    period_s: float = LEASE_S

    @classmethod
    def of(cls, lease: Object) -> Self:
        """Return a lease's state. Each renewal changes it."""
        lasts = float(lease["spec"].get("leaseDurationSeconds") or LEASE_S)
        return cls(lease["metadata"]["resourceVersion"], lasts)


class Observer:
    """Finds what has not changed for its whole period.

    It uses only its own looks and its own monotonic clock, like leader election in client-go, so
    the clocks of other machines do not matter. After a pause (the API server did not answer, or
    this process stood still) every object has its full period again.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._since: dict[str, tuple[State, float]] = {}
        self._looked = now()

    def look(self, read: Callable[[], Mapping[str, State]]) -> set[str]:
        """Return the keys whose state has not changed for its whole period.

        `read` returns {key: state} from the cluster. If it fails, all earlier looks are forgotten.
        """
        asked = self._now()
        if asked - self._looked > MOST_APART_S:
            self._since = {}
        try:
            found = read()
        except BaseException:
            self._since = {}
            raise
        before, answered = self._since, self._now()
        if answered - asked > MOST_APART_S:
            before = {}
        self._looked = answered
        self._since = {
            key: before[key] if key in before and before[key][0] == state else (state, answered)
            for key, state in found.items()
        }
        return {
            key for key, (state, since) in self._since.items() if asked - since > state.period_s
        }


def _label(target: str) -> str:
    return names.label(target.replace("/", "."))


def _now() -> str:
    """Return the time for people who read the object; nothing depends on it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
