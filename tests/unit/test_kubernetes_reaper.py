"""The reaper ends what no live lease holds, and nothing else."""

from __future__ import annotations

import json
import threading
import time
from typing import Any

import pytest

from moaa.errors import MoaaError
from moaa.kubernetes import names, reaper
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, TRAIN_JOBS, Kind
from tests.support.fake_ensemble import deployment
from tests.support.kube_server import KubeServer

pytestmark = pytest.mark.timeout(60)
NOW = time.time()
LIVE, OVER = NOW + 1000, NOW - 5


def leased(**ends: float) -> dict[str, str]:
    """`run_stage=end`: holders `run/stage/x`."""
    return {
        names.LEASES: json.dumps({f"{who.replace('_', '/')}/x": end for who, end in ends.items()})
    }


def job(
    name: str,
    annotations: dict[str, str],
    run: str = "r",
    status: dict[str, Any] | None = None,
    **labels: str,
) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "labels": names.work_labels(run, "sft") | labels,
            "annotations": annotations,
        },
        "status": status or {},
    }


def there(kube: KubeServer, kind: Kind) -> set[str]:
    return {name for plural, name in kube.objects if plural == kind.plural}


def replicas(kube: KubeServer, name: str) -> int:
    return kube.find(DEPLOYMENTS, name)["spec"]["replicas"]


def test_what_no_live_lease_holds_is_ended(kube: KubeServer) -> None:
    for name, count, given in (
        ("live", 2, leased(r_sft=LIVE, q_sft=OVER)),
        ("over", 2, leased(r_sft=OVER)),
        ("released", 1, {names.LEASES: "{}"}),
        ("never", 1, {}),
        ("kept-up", 3, leased(r_sft=OVER) | {names.IDLE_REPLICAS: "2"}),
        ("down", 0, {}),
    ):
        kube.put(DEPLOYMENTS, deployment(name, name, replicas=count, annotations=given))
    gateway = deployment("gateway", "x", replicas=2)
    del gateway["metadata"]["labels"][names.MODEL]
    kube.put(DEPLOYMENTS, gateway)
    foreign = deployment("foreign", "x", replicas=2)
    foreign["metadata"]["labels"][names.PART_OF] = "else"
    kube.put(DEPLOYMENTS, foreign)
    for kind in (JOBS, TRAIN_JOBS):
        kube.put(kind, job("live", leased(r_sft=LIVE)))
        kube.put(kind, job("over", leased(r_sft=OVER)))
        kube.put(kind, job("never", {}))  # the runner, the reaper itself
        kube.put(kind, job("foreign", leased(r_sft=OVER), **{names.PART_OF: "else"}))

    assert sorted(reaper.reap(kube.cluster())) == [
        "Deployment kept-up scaled from 3 to 2: no live lease (released: r/sft/x)",
        "Deployment live kept at 2 (released: q/sft/x)",
        "Deployment never scaled from 1 to 0: no live lease",
        "Deployment over scaled from 2 to 0: no live lease (released: r/sft/x)",
        "Deployment released scaled from 1 to 0: no live lease",
        "Job over deleted: no live lease (last: r/sft/x)",
        "TrainJob over deleted: no live lease (last: r/sft/x)",
    ]
    found = {name: replicas(kube, name) for name in there(kube, DEPLOYMENTS)}
    assert found == {
        "live": 2,
        "over": 0,
        "released": 0,
        "never": 0,
        "kept-up": 2,
        "down": 0,
        "gateway": 2,
        "foreign": 2,
    }
    assert there(kube, JOBS) == there(kube, TRAIN_JOBS) == {"live", "never", "foreign"}
    assert list(
        json.loads(kube.find(DEPLOYMENTS, "live")["metadata"]["annotations"][names.LEASES])
    ) == ["r/sft/x"]
    kube.requests.clear()
    assert list(reaper.reap(kube.cluster())) == []
    assert {method for method, _, _ in kube.requests} == {"GET"}


def test_a_dry_run_only_says(kube: KubeServer) -> None:
    kube.put(DEPLOYMENTS, deployment("over", "a", replicas=1, annotations=leased(r_sft=OVER)))
    kube.put(JOBS, job("over", leased(r_sft=OVER)))
    assert list(reaper.reap(kube.cluster(), dry_run=True)) == [
        "Deployment over would be scaled from 1 to 0: no live lease (released: r/sft/x)",
        "Job over would be deleted: no live lease (last: r/sft/x)",
    ]
    assert {method for method, _, _ in kube.requests} == {"GET"}


@pytest.mark.parametrize("kind", [DEPLOYMENTS, JOBS])
def test_a_lease_that_is_taken_in_the_same_moment_wins(
    kube: KubeServer, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.put(DEPLOYMENTS, deployment("a", "a", replicas=1, annotations=leased(r_sft=OVER)))
    kube.put(JOBS, job("a", leased(r_sft=OVER)))
    listed = Cluster.list

    def and_then_leased(self: Cluster, asked: Kind, labels: str = "", **how: Any) -> Any:
        found = listed(self, asked, labels, **how)
        if asked == kind:
            newest = kube.find(kind, "a")
            newest["metadata"]["annotations"] = leased(q_sft=LIVE)
            kube.put(kind, newest)
        return found

    monkeypatch.setattr(Cluster, "list", and_then_leased)
    said = list(reaper.reap(kube.cluster()))
    assert [line.split()[0] for line in said] == (
        ["Job"] if kind == DEPLOYMENTS else ["Deployment"]
    )
    assert replicas(kube, "a") == (1 if kind == DEPLOYMENTS else 0)
    assert there(kube, JOBS) == (set() if kind == DEPLOYMENTS else {"a"})


def test_a_training_that_counts_while_it_is_deleted_is_deleted(kube: KubeServer) -> None:
    kube.put(TRAIN_JOBS, job("a", leased(r_sft=OVER)))
    kube.fail(409, "modified", times=2, when=lambda method, what: method == "DELETE")
    assert list(reaper.reap(kube.cluster())) == [
        "TrainJob a deleted: no live lease (last: r/sft/x)"
    ]
    kube.put(TRAIN_JOBS, job("b", leased(r_sft=OVER)))
    kube.fail(
        409, "modified", times=reaper.DELETE_TRIES, when=lambda method, what: method == "DELETE"
    )
    assert list(reaper.reap(kube.cluster())) == ["TrainJob b changes too fast to be deleted now"]


def test_without_trainer(kube: KubeServer) -> None:
    kube.unknown.add("trainjobs")
    assert list(reaper.reap(kube.cluster())) == [
        "no trainjobs here: trainjobs.trainer.kubeflow.org is not installed"
    ]


def test_one_that_cannot_be_ended_does_not_keep_the_others(kube: KubeServer) -> None:
    kube.put(DEPLOYMENTS, deployment("a", "a", replicas=1, annotations={names.LEASES: "soon"}))
    kube.put(DEPLOYMENTS, deployment("b", "b", replicas=1))
    said = []
    with pytest.raises(MoaaError, match=r"annotation moaa.dev/leases holds 'soon'"):
        said.extend(reaper.reap(kube.cluster()))
    assert replicas(kube, "b") == 0


def test_the_end_of_a_run_gives_back_what_it_holds(kube: KubeServer) -> None:
    for name, given in (
        ("mine", leased(r_sft=LIVE)),
        ("shared", leased(r_label=LIVE, q_sft=LIVE)),
        ("idle", {}),
    ):
        kube.put(DEPLOYMENTS, deployment(name, name, replicas=1, annotations=given))
    kube.put(TRAIN_JOBS, job("mine", leased(r_sft=LIVE)))
    kube.put(TRAIN_JOBS, job("others", leased(q_sft=LIVE), run="q"))
    done = {"conditions": [{"type": "Complete", "status": "True"}]}
    kube.put(TRAIN_JOBS, job("done", leased(r_sft=LIVE), status=done))
    assert sorted(reaper.end_run(kube.cluster(), "r")) == [
        "Deployment mine scaled from 1 to 0: no live lease (released: r/sft/x)",
        "Deployment shared kept at 1 (released: r/label/x)",
        "TrainJob mine deleted: no live lease (last: r/sft/x)",
    ]
    assert replicas(kube, "idle") == 1  # not this run's business
    assert there(kube, TRAIN_JOBS) == {"others", "done"}


def test_the_command(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def connect(namespace: str | None = None) -> Cluster:
        asked.append(namespace)
        return kube.cluster()

    monkeypatch.setattr(Cluster, "connect", connect)
    assert reaper.main(["--namespace", "team"]) == 0
    assert (asked, capsys.readouterr().err) == (
        ["team"],
        "nothing to scale down or delete in namespace team\n",
    )
    kube.put(DEPLOYMENTS, deployment("a", "a", replicas=1))
    assert reaper.main(["--dry-run"]) == 0
    assert capsys.readouterr().err == "Deployment a would be scaled from 1 to 0: no live lease\n"
    kube.fail(
        403,
        'deployments.apps is forbidden: User "system:serviceaccount:team:x" cannot list resource '
        '"deployments"',
    )
    assert reaper.main([]) == 1
    assert (
        "reaper: the account 'system:serviceaccount:team:x' may not list deployments.apps"
        in capsys.readouterr().err
    )


def test_what_went_by_itself_is_no_failure(kube: KubeServer) -> None:
    kube.put(DEPLOYMENTS, deployment("a", "a", replicas=1))
    kube.put(TRAIN_JOBS, job("a", leased(r_sft=OVER)))
    said = reaper.reap(kube.cluster())
    kube.fail(404, "gone", when=lambda method, what: method == "PATCH")
    kube.fail(409, "modified", when=lambda method, what: method == "DELETE")
    kube.fail(404, "gone", when=lambda method, what: what == "trainjobs/a" and method == "GET")
    assert list(said) == []


def test_two_reapers_do_no_harm(kube: KubeServer) -> None:
    for n in range(10):
        kube.put(DEPLOYMENTS, deployment(f"d{n}", f"m{n}", replicas=1))
        kube.put(JOBS, job(f"j{n}", leased(r_sft=OVER)))
    failed: list[BaseException] = []

    def reap() -> None:
        try:
            list(reaper.reap(kube.cluster()))
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=reap) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert [replicas(kube, f"d{n}") for n in range(10)] == [0] * 10
    assert there(kube, JOBS) == set()
