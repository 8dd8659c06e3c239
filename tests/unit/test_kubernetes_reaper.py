"""The reaper ends what nobody has held for a whole period, and nothing else."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from moaa.errors import MoaaError
from moaa.kubernetes import names, reaper
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Unreachable
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, LEASES, TRAIN_JOBS, Kind
from moaa.kubernetes.leases import Lease
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import hold, holders
from tests.support.reaping import Watching, job, put, replicas, there

pytestmark = pytest.mark.timeout(60)
DONE = {"conditions": [{"type": "Complete", "status": "True"}]}
ALL_KINDS = pytest.mark.parametrize("kind", [DEPLOYMENTS, JOBS, TRAIN_JOBS], ids=lambda k: k.name)


def works(kube: KubeServer, kind: Kind, name: str) -> bool:
    if kind is DEPLOYMENTS:
        return bool(kube.find(kind, name)["spec"]["replicas"])
    return name in there(kube, kind)


def test_what_nobody_has_held_for_a_whole_period_is_ended(kube: KubeServer) -> None:
    for name, count, given in (
        ("over", 2, {}),
        ("never", 1, {}),
        ("kept-up", 3, {names.IDLE_REPLICAS: "2"}),
        ("down", 0, {}),
    ):
        kube.put(DEPLOYMENTS, deployment(name, name, replicas=count, annotations=given))
    gateway = deployment("gateway", "x", replicas=2)
    del gateway["metadata"]["labels"][names.MODEL]
    kube.put(DEPLOYMENTS, gateway)
    foreign = deployment("foreign", "x", replicas=2)
    foreign["metadata"]["labels"][names.PART_OF] = "else"
    kube.put(DEPLOYMENTS, foreign)
    for name in ("over", "kept-up", "foreign"):
        hold(kube, DEPLOYMENTS, name, "r/sft/x")
    for kind in (JOBS, TRAIN_JOBS):
        for name in ("over", "never"):
            kube.put(kind, job(name))
        kube.put(kind, job("failed", status=DONE))  # for people to look at
        kube.put(kind, job("foreign", status=None, **{names.PART_OF: "else"}))
        runner = job("runner")
        del runner["metadata"]["labels"][names.TRAINING]
        kube.put(kind, runner)
        hold(kube, kind, "over", "r/sft/x")
    watching = Watching(kube)
    assert watching.watches(120) == []
    assert watching.looks(10) == [
        "Deployment foreign: lease of r/sft/x removed, not renewed",
        "Deployment kept-up scaled from 3 to 2: no live lease (last: r/sft/x)",
        "Deployment never scaled from 1 to 0: no live lease (last: nobody)",
        "Deployment over scaled from 2 to 0: no live lease (last: r/sft/x)",
        "Job never deleted: no live lease (last: nobody)",
        "Job over deleted: no live lease (last: r/sft/x)",
        "TrainJob never deleted: no live lease (last: nobody)",
        "TrainJob over deleted: no live lease (last: r/sft/x)",
    ]
    found = {name: replicas(kube, name) for name in there(kube, DEPLOYMENTS)}
    assert found == {
        "over": 0,
        "never": 0,
        "kept-up": 2,
        "down": 0,
        "gateway": 2,
        "foreign": 2,
    }
    assert there(kube, JOBS) == there(kube, TRAIN_JOBS) == {"failed", "foreign", "runner"}
    assert there(kube, LEASES) == set()
    kube.requests.clear()
    assert watching.watches(300) == []
    assert {method for method, _, _ in kube.requests} == {"GET"}


@ALL_KINDS
@pytest.mark.parametrize("skew_s", [-130, 130, 86_400])
def test_the_clock_of_a_holder_does_not_matter(
    kube: KubeServer, kind: Kind, skew_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its renewals change the object; the times in it are for people."""
    put(kube, kind, "a")
    from datetime import datetime as real

    from moaa.kubernetes import leases

    class Skewed(real):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return real.fromtimestamp(time.time() + skew_s, tz)

    monkeypatch.setattr(leases, "datetime", Skewed)
    lease = Lease(kube.cluster(), kind, "a", "r/sft/x")
    watching = Watching(kube)
    for _ in range(20):
        lease.renew()
        assert watching.watches(30) == []
    assert works(kube, kind, "a")


@ALL_KINDS
def test_an_api_server_that_was_away_ends_nothing_that_lives(kube: KubeServer, kind: Kind) -> None:
    put(kube, kind, "a")
    lease = Lease(kube.cluster(), kind, "a", "r/sft/x")
    lease.renew()
    watching = Watching(kube)
    watching.watches(110)
    reader = watching.reaper._cluster
    reader.list = lambda *a, **k: (_ for _ in ()).throw(Unreachable("away"))  # type: ignore[method-assign]
    for _ in range(15):
        with pytest.raises(Unreachable):
            watching.looks(10)
    del reader.list
    assert watching.watches(90) == [], "the reaper is the first when it is back"
    lease.renew()
    assert watching.watches(110) == []
    assert works(kube, kind, "a")


def test_two_runs_share_and_one_of_them_dies(kube: KubeServer) -> None:
    put(kube, DEPLOYMENTS, "a")
    hold(kube, DEPLOYMENTS, "a", "dead/sft/x")
    lease = Lease(kube.cluster(), DEPLOYMENTS, "a", "alive/sft/y")
    watching = Watching(kube)
    said = []
    for _ in range(6):
        lease.renew()
        said += watching.watches(30)
    assert said == ["Deployment a: lease of dead/sft/x removed, not renewed"]
    assert (replicas(kube, "a"), holders(kube, DEPLOYMENTS, "a")) == (1, ["alive/sft/y"])


def test_a_dry_run_only_says(kube: KubeServer) -> None:
    put(kube, DEPLOYMENTS, "over")
    put(kube, JOBS, "over")
    hold(kube, DEPLOYMENTS, "over", "r/sft/x")
    kube.requests.clear()
    watching = Watching(kube, dry_run=True)
    watching.watches(120)
    assert watching.looks(10) == [
        "Deployment over would be scaled from 1 to 0: no live lease (last: r/sft/x)",
        "Job over would be deleted: no live lease (last: nobody)",
    ]
    assert {method for method, _, _ in kube.requests} == {"GET"}


def test_without_trainer(kube: KubeServer) -> None:
    kube.unknown.add("trainjobs")
    put(kube, JOBS, "a")
    assert Watching(kube).watches(130) == ["Job a deleted: no live lease (last: nobody)"]


def test_one_that_cannot_be_ended_does_not_keep_the_others(kube: KubeServer) -> None:
    for name in ("a", "b"):
        put(kube, DEPLOYMENTS, name)
    watching = Watching(kube)
    watching.watches(120)
    kube.fail(403, "no", when=lambda method, what: what == "deployments/a/scale")
    with pytest.raises(MoaaError, match="refuses to patch Deployment 'a'"):
        watching.looks(10)
    assert (replicas(kube, "a"), replicas(kube, "b")) == (1, 0)


def test_the_end_of_a_run_gives_back_what_it_holds(kube: KubeServer) -> None:
    for name in ("mine", "shared", "idle"):
        put(kube, DEPLOYMENTS, name)
    for name in ("mine", "shared", "others"):
        put(kube, TRAIN_JOBS, name)
    kube.put(TRAIN_JOBS, job("done", status=DONE))
    hold(kube, DEPLOYMENTS, "mine", "r/sft/x")
    hold(kube, DEPLOYMENTS, "shared", "r/label/x", "q/sft/x")
    hold(kube, TRAIN_JOBS, "mine", "r/sft/x")
    hold(kube, TRAIN_JOBS, "done", "r/sft/x")
    hold(kube, TRAIN_JOBS, "shared", "r/sft/x", "q/sft/x")
    hold(kube, TRAIN_JOBS, "others", "q/sft/x")
    assert sorted(reaper.end_run(kube.cluster(), "r")) == [
        "Deployment mine scaled from 1 to 0 (released: r/sft/x)",
        "Deployment shared kept: others hold it (released: r/label/x)",
        "TrainJob done kept: it has ended (released: r/sft/x)",
        "TrainJob mine deleted (released: r/sft/x)",
        "TrainJob shared kept: others hold it (released: r/sft/x)",
    ]
    assert [replicas(kube, name) for name in ("mine", "shared", "idle")] == [0, 1, 1]
    assert there(kube, TRAIN_JOBS) == {"shared", "others", "done"}
    left = holders(kube, DEPLOYMENTS, "shared") + holders(kube, TRAIN_JOBS, "shared")
    assert left == ["q/sft/x"] * 2


def test_the_end_of_a_run_removes_leases_on_what_is_gone(kube: KubeServer) -> None:
    hold(kube, TRAIN_JOBS, "gone", "r/sft/x")
    assert list(reaper.end_run(kube.cluster(), "r")) == [
        "TrainJob gone is gone (released: r/sft/x)"
    ]
    assert there(kube, LEASES) == set()


def test_the_command(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def connect(namespace: str | None = None) -> Cluster:
        asked.append(namespace)
        return kube.cluster()

    monkeypatch.setattr(Cluster, "connect", connect)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    monkeypatch.setattr(reaper, "watch", lambda made, stop_at: int(stop_at == float("inf")))
    assert reaper.main(["--namespace", "team", "--once"]) == 0
    assert reaper.main([]) == 1
    assert (asked, capsys.readouterr().err) == (
        ["team", None],
        "watches the leases of namespace team\n" * 2,
    )


def test_a_problem_is_said_once_and_the_watch_goes_on(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = 'leases is forbidden: User "x" cannot list resource "leases" in API group ""'
    kube.fail(403, refusal, times=3, when=lambda method, what: what == "leases")
    watching, naps = Watching(kube), list[float]()
    clock = SimpleNamespace(monotonic=lambda: float(len(naps)), sleep=naps.append)
    monkeypatch.setattr(reaper, "time", clock)
    assert reaper.watch(watching.reaper, 4.5) == 0
    assert naps == [reaper.LOOK_EVERY_S] * 5
    (said,) = caplog.messages
    assert "reaper: the account 'x' may not list leases.coordination.k8s.io" in said
