"""The Kubernetes API: what is tried again, what is refused, and what each call does."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moaa.errors import ClusterError
from moaa.kubernetes import api
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Conflict, Forbidden, NoCluster, NotFound, Unreachable
from moaa.kubernetes.kinds import DEPLOYMENTS, EVENTS, JOBS, PODS, TRAIN_JOBS
from tests.support.kube_objects import FORBIDDEN, pod
from tests.support.kube_server import KubeServer

pytestmark = [pytest.mark.timeout(60), pytest.mark.usefixtures("quick_mirrors")]


@pytest.mark.parametrize("status", [429, 500, 503, 504, 0])
def test_what_heals_is_tried_again(kube: KubeServer, status: int) -> None:
    kube.put(PODS, pod("a"))
    kube.fail(status, times=3)
    assert kube.cluster().get(PODS, "a")["metadata"]["name"] == "a"
    assert kube.count("GET") == 4


def test_retry_after_is_honoured(kube: KubeServer) -> None:
    kube.fail(429, headers={"Retry-After": "1"})
    begun = time.monotonic()
    assert kube.cluster().list(PODS) == []
    assert time.monotonic() - begun >= 1


def test_patience_ends(kube: KubeServer) -> None:
    kube.fail(503, "etcd is away", times=99)
    with pytest.raises(
        Unreachable,
        match=r"could not be asked to get pods in namespace 'team': HTTP 503: etcd is away "
        r"\(given up after 1 s",
    ):
        kube.cluster().get(PODS, "a", retry_s=1)


def test_nobody_listens() -> None:
    with KubeServer() as server:
        cluster = server.cluster()
    with pytest.raises(
        Unreachable,
        match=r"Kubernetes at http://127.0.0.1:\d+ could not be asked to delete jobs.batch",
    ):
        cluster.delete(JOBS, "a", retry_s=0.2)


@pytest.mark.parametrize(
    ("status", "said", "call", "kind", "text"),
    [
        (
            403,
            FORBIDDEN.format(verb="patch", resource="deployments"),
            lambda c: c.patch(DEPLOYMENTS, "a", {}),
            Forbidden,
            r"the account 'system:serviceaccount:team:nobody' may not patch deployments.apps in "
            r"namespace 'team': its Role lacks",
        ),
        (
            403,
            FORBIDDEN.format(verb="get", resource="pods/log"),
            lambda c: c.log("a", "vllm", lines=1),
            Forbidden,
            "not get pods/log",
        ),
        (
            403,
            FORBIDDEN.format(verb="list", resource="pods"),
            lambda c: c.list(PODS),
            Forbidden,
            "may not list pods in",
        ),
        (
            403,
            'pods "a" is forbidden: exceeded quota: gpus',
            lambda c: c.create(PODS, pod("a")),
            ClusterError,
            r"refuses to create pods in namespace 'team' \(HTTP 403\): pods \"a\" is forbidden: "
            r"exceeded quota: gpus",
        ),
        (
            401,
            "Unauthorized",
            lambda c: c.list(PODS),
            Forbidden,
            "does not accept this login .*the token has expired",
        ),
        (
            422,
            "spec.x: Required",
            lambda c: c.create(JOBS, pod("a")),
            ClusterError,
            r"\(HTTP 422\): spec.x: Required",
        ),
    ],
)
def test_refusals_say_what_is_missing(
    kube: KubeServer,
    status: int,
    said: str,
    call: Callable[[Cluster], object],
    kind: type[ClusterError],
    text: str,
) -> None:
    kube.fail(status, said)
    with pytest.raises(kind, match=text) as caught:
        call(kube.cluster())
    assert type(caught.value) is kind
    assert len(kube.requests) == 1


def test_what_is_not_there(kube: KubeServer) -> None:
    with pytest.raises(NotFound, match="there is no Deployment 'a' in namespace 'team'"):
        kube.cluster().get(DEPLOYMENTS, "a")
    kube.unknown.add("trainjobs")
    with pytest.raises(
        NotFound,
        match=r"does not know trainjobs.trainer.kubeflow.org \(trainer.kubeflow.org/v1alpha1\)",
    ):
        kube.cluster().list(TRAIN_JOBS)


def test_all_pages_even_when_one_is_too_old(kube: KubeServer) -> None:
    for n in range(7):
        kube.put(PODS, pod(f"p{n}", of="x" if n != 3 else "y"))
    kube.page = 2
    cluster = kube.cluster()
    assert [each["metadata"]["name"] for each in cluster.list(PODS, "of=x")] == [
        "p0",
        "p1",
        "p2",
        "p4",
        "p5",
        "p6",
    ]
    assert kube.count("GET") == 3
    kube.fail(410, "too old", when=lambda method, what: kube.count("GET") == 5)
    assert len(cluster.list(PODS)) == 7


def test_create_and_delete(kube: KubeServer) -> None:
    cluster = kube.cluster()
    kube.fail(
        409, "Operation cannot be fulfilled on resourcequotas: the object has been modified"
    )  # heals
    made = cluster.create(PODS, pod("a"))
    with pytest.raises(Conflict):
        cluster.create(PODS, pod("a"))
    assert kube.count("POST") == 3
    kube.put(PODS, pod("a", changed="yes"))
    with pytest.raises(Conflict):
        cluster.delete(PODS, "a", seen=made)
    cluster.delete(PODS, "a", seen=cluster.get(PODS, "a"))
    cluster.delete(PODS, "a")
    assert kube.requests[-1][2] == {"propagationPolicy": "Background"}


def test_updates_lose_nothing(kube: KubeServer) -> None:
    """Eight at once count up: each writes only over what it has read."""
    kube.put(JOBS, {"metadata": {"name": "a", "annotations": {"n": "0"}}})

    def count(found: dict[str, Any]) -> dict[str, Any]:
        return {
            "metadata": {"annotations": {"n": str(int(found["metadata"]["annotations"]["n"]) + 1)}}
        }

    cluster = kube.cluster()
    threads = [threading.Thread(target=cluster.update, args=(JOBS, "a", count)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert kube.find(JOBS, "a")["metadata"]["annotations"]["n"] == "8"


def test_an_update_that_knows_the_newest_is_one_request(kube: KubeServer) -> None:
    known = kube.put(JOBS, {"metadata": {"name": "a"}})
    change = {"metadata": {"annotations": {"x": "y"}}}
    newest = kube.cluster().update(JOBS, "a", lambda found: dict(change), known=known)
    assert [method for method, _, _ in kube.requests] == ["PATCH"]
    assert newest["metadata"]["annotations"] == {"x": "y"}
    kube.cluster().update(
        JOBS, "a", lambda found: dict(change), known=known
    )  # not the newest any more
    assert [method for method, _, _ in kube.requests] == ["PATCH", "PATCH", "GET", "PATCH"]
    kube.cluster().update(JOBS, "a", lambda found: None)
    assert kube.requests[-1][0] == "GET"


def test_an_update_that_is_always_overtaken_ends(
    kube: KubeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(api, "UPDATE_TRIES", 3)
    kube.put(JOBS, {"metadata": {"name": "a"}})
    kube.fail(409, "modified", times=3, when=lambda method, what: method == "PATCH")
    with pytest.raises(Conflict, match="changed by others 3 times in a row"):
        kube.cluster().update(JOBS, "a", lambda found: {"spec": {}})


def test_events_and_logs(kube: KubeServer) -> None:
    for name, of, at in (
        ("e1", "a", "2026-01-01T00:00:02Z"),
        ("e2", "a", "2026-01-01T00:00:01Z"),
        ("e3", "b", "2026-01-01T00:00:00Z"),
    ):
        kube.put(
            EVENTS,
            {"metadata": {"name": name}, "involvedObject": {"name": of}, "lastTimestamp": at},
        )
    cluster = kube.cluster()
    assert [event["metadata"]["name"] for event in cluster.events("a")] == ["e2", "e1"]
    kube.logs["a", "vllm", False] = "one\ntwo\n"
    assert cluster.log("a", "vllm", lines=5) == "one\ntwo\n"
    assert cluster.log("a", "vllm", lines=5, previous=True) == ""  # it was never started before


def test_where_the_cluster_is_taken_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("MOAA_NAMESPACE", raising=False)
    file = tmp_path / "config"
    monkeypatch.setenv("KUBECONFIG", str(file))
    # The client reads KUBECONFIG once, when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    with pytest.raises(
        ClusterError, match=r"no Kubernetes cluster is configured: .*Set KUBECONFIG"
    ):
        Cluster.connect()
    file.write_text(
        "{apiVersion: v1, kind: Config, current-context: here, users: [{name: me, user: {token: "
        "t}}],"
        " clusters: [{name: c, cluster: {server: 'https://kube.example:6443'}}],"
        " contexts: [{name: here, context: {cluster: c, user: me, namespace: mine}}]}"
    )
    found = Cluster.connect()
    assert (found.host, found.namespace, found.inside) == (
        "https://kube.example:6443",
        "mine",
        False,
    )
    monkeypatch.setenv("MOAA_NAMESPACE", "theirs")
    assert Cluster.connect().namespace == "theirs"
    assert Cluster.connect("given").namespace == "given"


@pytest.mark.parametrize(
    ("named", "error"),
    [(None, NoCluster), (os.devnull, NoCluster), ("no-such-file", ClusterError)],
)
def test_a_cluster_that_is_named_and_one_that_is_not(
    named: str | None, error: type[ClusterError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.delenv("KUBECONFIG", raising=False)
    if named:
        monkeypatch.setenv("KUBECONFIG", named)
    with pytest.raises(ClusterError, match="no Kubernetes cluster is configured") as caught:
        Cluster.connect()
    assert type(caught.value) is error
