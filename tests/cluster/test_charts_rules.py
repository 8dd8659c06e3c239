"""What the charts allow and forbid on a real cluster: rights, network policies, placement; and a
training from the runtime."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import partial

import pytest
import yaml

from moaa.recipe.schema import Cluster, Images, Launcher, Pool, Runtime, Sft, StoreAddress
from moaa.train import objects
from moaa.train.job import Job, Launch
from tests.charts.render import PLATFORM, SERVING
from tests.cluster.charts import (
    ALWAYS,
    FAKE,
    IMAGE,
    client,
    fake_engine,
    install,
    pods,
    ready,
    serving,
    without_reaper,
)
from tests.cluster.gpus import pretended
from tests.cluster.tools import Namespace, namespace, needs_cluster, run, tried, until

pytestmark = needs_cluster
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "moaa-s3"},
    "stringData": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"},
}


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("charts-rules", pod_security_kubernetes_io__enforce="restricted") as made:
        fake_engine(made)
        yield made


@pytest.fixture(scope="module")
def platform(ns: Namespace) -> None:
    without_reaper(ns, {"images": {"core": IMAGE, "train": IMAGE}})


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


def test_a_training_runs_from_the_charts_runtime(ns: Namespace, platform: None) -> None:
    """Two restricted pods with S3's variables, a /tmp and a /dev/shm to write to, and torchrun's
    environment."""
    script = (
        "import os; open('/tmp/a','w').write('x'); open('/dev/shm/a','w').write('x');"
        "print(os.environ['PET_NNODES'], os.environ['PET_NODE_RANK'], "
        "os.environ['AWS_ACCESS_KEY_ID'], os.getuid())"
    )
    spec = {
        "runtimeRef": {
            "apiGroup": "trainer.kubeflow.org",
            "kind": "TrainingRuntime",
            "name": "moaa-train-default",
        },
        "trainer": {"numNodes": 2, "numProcPerNode": 1, "command": ["python3", "-c", script]},
    }
    ns.apply(
        [
            SECRET,
            {
                "apiVersion": "trainer.kubeflow.org/v1alpha1",
                "kind": "TrainJob",
                "metadata": {"name": "t"},
                "spec": spec,
            },
        ]
    )
    ns.kubectl("wait", "trainjob/t", "--for=condition=Complete", "--timeout=90s")
    found = ns.items("pods", "jobset.sigs.k8s.io/jobset-name=t")
    logs = sorted(ns.kubectl("logs", each["metadata"]["name"]) for each in found)
    assert logs == ["2 0 key 1000\n", "2 1 key 1000\n"]
    assert all("token" not in json.dumps(each["spec"]["volumes"]) for each in found)
    ns.kubectl("delete", "trainjob/t", "secret/moaa-s3")


ACCELERATOR, LABEL = "moaa.test/charts-gpu", "moaa.test/charts-pool"
NO_ROOM = f"Insufficient {ACCELERATOR}"


def place(ns: Namespace, labels: str) -> list[str]:
    """Return the nodes of these pods, without pods that have none."""
    return [
        each["spec"]["nodeName"] for each in ns.items("pods", labels) if "nodeName" in each["spec"]
    ]


def test_engines_are_placed_by_pool_and_gpus(ns: Namespace) -> None:
    """On a node with eight GPUs and the pool's label, engines of two and four are placed; one of
    sixteen waits, and its pod says why."""
    pool = {
        "device": "cuda",
        "accelerator": ACCELERATOR,
        "nodeSelector": {LABEL: "here"},
        "cpus": 0.01,
        "memoryGib": 0.05,
    }
    fake = {key: value for key, value in FAKE.items() if key != "resources"}
    models = [
        {"name": f"tp{size}", "tensorParallelSize": size, "replicas": 1, "pool": "a100"}
        for size in (2, 4, 16)
    ]
    values = serving(*models, pools={"a100": pool}, modelDefaults=fake)
    with pretended(ACCELERATOR, LABEL, 8) as node:
        try:
            ns.helm(
                "upgrade",
                "--install",
                "gpus",
                str(SERVING),
                "--values",
                "-",
                given=yaml.safe_dump(values),
            )
            for size in (2, 4):
                assert until(
                    partial(place, ns, f"moaa.dev/model=tp{size}"), f"tp{size}'s node"
                ) == [node]
            until(lambda: NO_ROOM in ns.kubectl("get", "events"), "the reason")
            assert not place(ns, "moaa.dev/model=tp16")
        finally:
            ns.helm("uninstall", "gpus", "--wait")


def test_trainings_are_placed_by_pool_and_gpus(ns: Namespace) -> None:
    """A TrainJob of two nodes with four ranks each takes all eight; a second one waits for its GPUs
    and says so."""
    pool = Pool(
        node_selector={LABEL: "here"},
        accelerator=ACCELERATOR,
        gpus=4,
        cpus=0.01,
        memory_gib=0.02,
        shm_gib=0.01,
    )
    launcher = Launcher(kind="trainer", ranks=4, nodes=2, pool="a100")
    runtime = Runtime(
        launcher=launcher, cluster=Cluster(namespace=ns.name, images=Images(train=IMAGE))
    )
    values = {
        "images": {"core": IMAGE, "train": IMAGE},
        "reaper": {"enabled": False},
        "pools": {
            "a100": {"nodeSelector": dict(pool.node_selector), "shmGib": pool.shm_gib, "tmpGib": 1}
        },
    }

    def training(digest: str) -> str:
        """Create a pod that only waits; return its name."""
        where = StoreAddress(root="s3://x")
        job = Job(
            kind="sft",
            numbers=Sft(),
            base="b",
            data="d",
            output=f"s3://x/sft/{digest}",
            store=where,
            device="cuda",
        )
        made = objects.train_job(Launch(job, runtime, {"a100": pool}), "run")
        made["spec"]["trainer"]["command"] = ["sleep", "300"]
        ns.apply(made)
        return made["metadata"]["name"]

    ns.apply(SECRET)
    install(ns, "platform", PLATFORM, values)
    with pretended(ACCELERATOR, LABEL, 8) as node:
        try:
            first = f"jobset.sigs.k8s.io/jobset-name={training('1' * 24)}"
            until(lambda: place(ns, first) == [node] * 2, "its nodes")
            limits = [
                each["spec"]["containers"][0]["resources"]["limits"][ACCELERATOR]
                for each in ns.items("pods", first)
            ]
            assert limits == ["4", "4"]
            name = training("2" * 24)
            second = f"jobset.sigs.k8s.io/jobset-name={name}"
            until(lambda: len(ns.items("pods", second)) == 2, "the pods of the second")
            said = "jsonpath={range .items[*]}{.involvedObject.name}{' '}{.message}{'\\n'}{end}"
            told = re.compile(rf"^{name}-node-\S+ .*{re.escape(NO_ROOM)}", re.MULTILINE)
            until(lambda: told.search(ns.kubectl("get", "events", "-o", said)), "the reason")
            assert not place(ns, second)
        finally:
            ns.kubectl("delete", "trainjobs", "--all", "--wait")
            ns.kubectl("delete", "secret/moaa-s3")
            until(
                lambda: not ns.items("pods", "jobset.sigs.k8s.io/jobset-name"),
                "the end of their pods",
                180,
            )
