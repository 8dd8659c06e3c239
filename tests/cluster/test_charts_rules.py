"""What the charts' policies and roles let happen, and what they do not."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from tests.charts.render import SERVING
from tests.cluster.charts import (
    ALWAYS,
    client,
    fake_engine,
    install,
    pods,
    ready,
    serving,
)
from tests.cluster.tools import Namespace, namespace, needs_cluster, run, tried, until

pytestmark = needs_cluster


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("charts-rules", pod_security_kubernetes_io__enforce="restricted") as made:
        fake_engine(made)
        yield made


def reaches(ns: Namespace, pod: str, address: str, port: int = 8000) -> bool:
    script = f"import socket; socket.create_connection(('{address}', {port}), 4)"
    return (
        tried("kubectl", "-n", ns.name, "exec", pod, "--", "python3", "-c", script).returncode == 0
    )


def test_policies_let_clients_in_and_weights_come_and_nothing_else(ns: Namespace) -> None:
    with namespace("charts-other") as other:
        for each in (ns, other):
            client(each, "friend", {"moaa.dev/client": "true"})
            client(each, "stranger", {"app": "x"})
        policy = {
            "clientNamespaces": [other.name],
            "s3": {"cidrs": [], "namespaces": [other.name], "ports": [9000]},
            "hub": {"cidrs": [], "namespaces": []},
        }
        install(ns, "ens", SERVING, serving(ALWAYS))
        (engine,) = until(
            lambda: [each for each in pods(ns, "always").values() if ready(each)], "the pod"
        )
        address, name = engine["status"]["podIP"], engine["metadata"]["name"]
        assert reaches(ns, "friend", address)
        assert not reaches(ns, "stranger", address)
        assert not reaches(other, "friend", address), "its namespace is not named yet"

        install(ns, "ens", SERVING, serving(ALWAYS, networkPolicy=policy))
        until(lambda: reaches(other, "friend", address), "the way in from the other namespace", 30)
        assert not reaches(other, "stranger", address)

        client(other, "store", {"app": "s3"})
        listen = (
            "import http.server as h; "
            "h.ThreadingHTTPServer(('', PORT), h.SimpleHTTPRequestHandler).serve_forever()"
        )
        for port in ("9000", "9001"):
            background = f'nohup python3 -c "{listen.replace("PORT", port)}" >/tmp/log 2>&1 &'
            other.kubectl("exec", "store", "--", "sh", "-c", background)
        there = other.get("pod", "store")["status"]["podIP"]
        until(
            lambda: reaches(other, "friend", there, 9000) and reaches(other, "friend", there, 9001),
            "the store",
        )
        labels = {
            "app.kubernetes.io/name": "moaa-serving",
            "app.kubernetes.io/instance": "ens",
            "moaa.dev/model": "x",
        }
        client(ns, "fetcher", labels | {"moaa.dev/weights": "s3"})
        assert reaches(ns, "fetcher", there, 9000), "where weights come from"
        assert not reaches(ns, "fetcher", there, 9001), "another port"
        assert not reaches(ns, name, there, 9000), "an engine whose weights come from elsewhere"
        resolve = "import socket; print(socket.gethostbyname('ens-always'))"
        assert ns.kubectl("exec", name, "--", "python3", "-c", resolve), (
            "names are resolved everywhere"
        )
        for pod in ("friend", "stranger", "fetcher"):
            ns.kubectl("delete", "pod", pod, "--ignore-not-found", "--wait=false")


MAY = [
    "get deployments.apps",
    "list deployments.apps",
    "watch deployments.apps",
    "get deployments.apps/scale",
    "patch deployments.apps/scale",
    "create leases.coordination.k8s.io",
    "patch leases.coordination.k8s.io",
    "list leases.coordination.k8s.io",
    "delete leases.coordination.k8s.io",
    "list endpointslices.discovery.k8s.io",
    "create trainjobs.trainer.kubeflow.org",
    "watch trainjobs.trainer.kubeflow.org",
    "patch trainjobs.trainer.kubeflow.org",
    "delete trainjobs.trainer.kubeflow.org",
    "get pods",
    "list pods",
    "watch pods",
    "delete pods",
    "get pods/log",
    "list events",
    "get configmaps/kfp-launcher",
    "get secrets/moaa-s3",
]

MUST_NOT = [
    "create deployments.apps",
    "patch deployments.apps",
    "list jobs.batch",
    "update deployments.apps",
    "delete deployments.apps",
    "create pods",
    "create pods/exec",
    "get secrets",
    "list secrets",
    "create secrets",
    "get configmaps",
    "create configmaps",
    "create services",
    "create jobs.batch",
    "delete jobs.batch",
    "create roles.rbac.authorization.k8s.io",
    "create rolebindings.rbac.authorization.k8s.io",
    "create serviceaccounts/token",
    "create trainingruntimes.trainer.kubeflow.org",
    "update trainjobs.trainer.kubeflow.org",
    "delete trainingruntimes.trainer.kubeflow.org",
    "delete persistentvolumeclaims",
    "create cronjobs.batch",
    "list nodes",
    "get namespaces",
    "impersonate serviceaccounts",
]


def allowed(ns: Namespace, account: str, right: str) -> bool:
    verb, what = right.split(" ")
    kind, _, rest = what.partition("/")
    named = [what] if rest in ("kfp-launcher", "moaa-s3", "") else [kind, f"--subresource={rest}"]
    who = f"system:serviceaccount:{ns.name}:{account}"
    return tried(
        "kubectl", "-n", ns.name, "auth", "can-i", verb, *named, f"--as={who}"
    ).stdout.startswith("yes")


def test_rights_both_ways(ns: Namespace, platform: None) -> None:
    assert [right for right in MAY if not allowed(ns, "moaa-pipeline", right)] == []
    assert [right for right in MUST_NOT if allowed(ns, "moaa-pipeline", right)] == []
    assert [right for right in MAY + MUST_NOT if allowed(ns, "moaa-train", right)] == []
    reaper = {right for right in MAY + MUST_NOT if allowed(ns, "moaa-reaper", right)}
    assert reaper == {
        "get deployments.apps",
        "list deployments.apps",
        "get deployments.apps/scale",
        "patch deployments.apps/scale",
        "list leases.coordination.k8s.io",
        "delete leases.coordination.k8s.io",
        "delete trainjobs.trainer.kubeflow.org",
        "list jobs.batch",
        "delete jobs.batch",
    }


def test_kubeflows_own_containers_may_report_results(ns: Namespace, platform: None) -> None:
    """Ask by a review: `can-i` refuses a kind that this cluster does not have."""
    attributes = {
        "namespace": ns.name,
        "verb": "create",
        "group": "argoproj.io",
        "resource": "workflowtaskresults",
    }
    for account, wanted in (("moaa-pipeline", True), ("moaa-train", False)):
        spec = {
            "user": f"system:serviceaccount:{ns.name}:{account}",
            "resourceAttributes": attributes,
        }
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SubjectAccessReview",
            "spec": spec,
        }
        answer = json.loads(
            run("kubectl", "create", "-f", "-", "-o", "json", given=json.dumps(review))
        )
        assert answer["status"]["allowed"] is wanted


def test_rights_end_at_the_namespace(ns: Namespace, platform: None) -> None:
    who = f"--as=system:serviceaccount:{ns.name}:moaa-pipeline"
    for right in (
        "list pods",
        "patch deployments.apps/scale",
        "create trainjobs.trainer.kubeflow.org",
    ):
        assert tried(
            "kubectl", "-n", "default", "auth", "can-i", *right.split(" "), who
        ).stdout.startswith("no")
