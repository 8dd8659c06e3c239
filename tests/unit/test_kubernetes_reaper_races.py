"""What is leased, joined or renewed in the moment in which the reaper ends it."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, TRAIN_JOBS, Kind
from moaa.kubernetes.leases import Lease
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import hold, holders
from tests.support.reaping import Watching, put, replicas, there

pytestmark = pytest.mark.timeout(60)


class Racing(Cluster):
    """Calls `meanwhile` once, before the request that `when` picks."""

    when = staticmethod(lambda verb, kind: False)
    meanwhile = staticmethod(lambda: None)

    def delete(self, kind: Kind, name: str, **how: Any) -> None:
        self._race("delete", kind)
        super().delete(kind, name, **how)

    def update(self, kind: Kind, name: str, change: Any, **how: Any) -> Any:
        self._race("update", kind)
        return super().update(kind, name, change, **how)

    def _race(self, verb: str, kind: Kind) -> None:
        if self.when(verb, kind):
            self.when = lambda verb, kind: False
            self.meanwhile()


def racing(watching: Watching, verb: str, kind: Kind, meanwhile: Any) -> None:
    there = watching.reaper._cluster
    there.__class__ = Racing
    there.when = lambda asked, on: (asked, on) == (verb, kind)  # type: ignore[attr-defined]
    there.meanwhile = meanwhile  # type: ignore[attr-defined]


def test_an_engine_that_is_leased_in_the_same_moment_is_up_in_the_end(kube: KubeServer) -> None:
    put(kube, DEPLOYMENTS, "a")
    watching = Watching(kube)
    watching.watches(120)
    racing(watching, "update", DEPLOYMENTS, lambda: hold(kube, DEPLOYMENTS, "a", "q/sft/y"))
    assert watching.looks(10) == []
    assert replicas(kube, "a") == 1


@pytest.mark.parametrize("kind", [JOBS, TRAIN_JOBS], ids=lambda k: k.name)
def test_a_training_that_is_joined_in_the_same_moment_stays(kube: KubeServer, kind: Kind) -> None:
    put(kube, kind, "a")
    watching = Watching(kube)
    watching.watches(120)

    def join() -> None:
        hold(kube, kind, "a", "q/sft/y")
        joined = {"metadata": {"annotations": {names.JOINED: "q/sft/y"}}}
        kube.cluster().update(kind, "a", lambda found: dict(joined))

    racing(watching, "delete", kind, join)
    assert watching.looks(10) == []
    assert there(kube, kind) == {"a"}


def test_a_lease_that_is_renewed_in_the_same_moment_is_not_removed(kube: KubeServer) -> None:
    put(kube, DEPLOYMENTS, "a")
    lease = Lease(kube.cluster(), DEPLOYMENTS, "a", "r/sft/x")
    lease.renew()
    watching = Watching(kube)
    watching.watches(120)
    racing(watching, "update", DEPLOYMENTS, lease.renew)
    assert watching.looks(10) == []
    assert (replicas(kube, "a"), holders(kube, DEPLOYMENTS, "a")) == (1, ["r/sft/x"])


def test_a_training_that_counts_while_it_is_deleted_is_deleted_at_the_next_look(
    kube: KubeServer,
) -> None:
    put(kube, TRAIN_JOBS, "a")
    watching = Watching(kube)
    watching.watches(120)
    kube.fail(409, "modified", when=lambda method, what: method == "DELETE")
    assert watching.looks(10) == []
    assert watching.looks(10) == ["TrainJob a deleted: no live lease (last: nobody)"]


def test_what_went_by_itself_is_no_failure(kube: KubeServer) -> None:
    put(kube, DEPLOYMENTS, "a")
    put(kube, TRAIN_JOBS, "a")
    watching = Watching(kube)
    watching.watches(120)
    kube.fail(404, "gone", when=lambda method, what: method == "PATCH")
    kube.fail(404, "gone", when=lambda method, what: method == "DELETE")
    assert "Deployment" not in " ".join(watching.looks(10))


def test_two_reapers_do_no_harm(kube: KubeServer) -> None:
    for n in range(10):
        put(kube, DEPLOYMENTS, f"d{n}")
        put(kube, JOBS, f"j{n}")
    watchers = [Watching(kube) for _ in range(3)]
    for each in watchers:
        each.watches(120)
    failed: list[BaseException] = []

    def reap(watching: Watching) -> None:
        try:
            watching.looks(10)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=reap, args=(each,)) for each in watchers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [replicas(kube, f"d{n}") for n in range(10)] == [0] * 10
    assert there(kube, JOBS) == set()
