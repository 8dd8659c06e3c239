"""A lease on a slot, so that only one promotion at a time changes the slot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from moaa.errors import MoaaError
from moaa.kubernetes import leases, names, replicas
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, LEASES, Object

STAGE: Final = "promote"


class SlotLease:
    """The lease of a promotion on a slot. Only one promotion at a time holds it."""

    def __init__(self, cluster: Cluster, deployment: str, clock: Callable[[], float]) -> None:
        self._cluster, self._deployment, self._clock = cluster, deployment, clock
        self._lease = leases.Lease(cluster, DEPLOYMENTS, deployment, names.holder(stage=STAGE))
        self._renewed_at: float | None = None
        self._scales = False

    def take(self, pause: Callable[[], None]) -> None:
        """Take the lease. The lease of a promotion that was killed is taken over after it was not
        renewed for its whole duration; `pause` is called again and again during this wait.

        Raises MoaaError if another promotion is in progress.
        """
        self.renew(scale=False)
        observer = leases.Observer(self._clock)
        first: dict[str, str] = {}
        while others := self._others():
            now = {name: each["metadata"]["resourceVersion"] for name, each in others.items()}
            first = {**now, **first}
            if any(first[name] != version for name, version in now.items()):
                self.end(scale_down=False)
                who = ", ".join(leases.holder_of(each) for each in others.values())
                raise MoaaError(
                    f"another promotion of {self._deployment} is in progress ({who}). Wait for "
                    "it, or stop it with `moaa rollback`."
                )
            for name in observer.look(self._states):
                self._cluster.delete(LEASES, name, seen=others[name])
            pause()
            self.renew_if_due()

    def _others(self) -> dict[str, Object]:
        """Return the leases of other promotions on the slot."""
        return {
            each["metadata"]["name"]: each
            for each in self._lease.others()
            if leases.holder_of(each).split("/")[-2:-1] == [STAGE]
        }

    def _states(self) -> dict[str, leases.State]:
        return {name: leases.State.of(each) for name, each in self._others().items()}

    def renew(self, *, scale: bool) -> None:
        """Take or renew the lease. `scale`: also scale the slot up."""
        self._scales = scale
        self._lease.renew(self._scale if scale else lambda: None)
        self._renewed_at = self._clock()

    def renew_if_due(self) -> None:
        """Renew the lease every RENEW_EVERY_S seconds."""
        since = self._renewed_at
        if since is not None and self._clock() - since > leases.RENEW_EVERY_S:
            self.renew(scale=self._scales)

    def end(self, *, scale_down: bool) -> None:
        """Give the lease back. `scale_down`: the slot goes
        to sleep unless somebody else holds it."""
        if self._renewed_at is None:
            return
        self._lease.release()
        if scale_down and not leases.on(self._cluster, f"{DEPLOYMENTS.name}/{self._deployment}"):
            replicas.scale(self._cluster, self._deployment, leased=False)

    def _scale(self) -> None:
        replicas.scale(self._cluster, self._deployment, leased=True)
