"""Pods of engines and trainings go where their pools say, with the GPUs that they need."""

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
    FAKE,
    IMAGE,
    fake_engine,
    install,
    serving,
)
from tests.cluster.gpus import pretended
from tests.cluster.tools import Namespace, namespace, needs_cluster, until

pytestmark = needs_cluster
SECRET = {
    "apiVersion": "v1",
    "kind": "Secret",
    "metadata": {"name": "moaa-s3"},
    "stringData": {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "hidden"},
}


@pytest.fixture(scope="module")
def ns() -> Iterator[Namespace]:
    with namespace("charts-placement", pod_security_kubernetes_io__enforce="restricted") as made:
        fake_engine(made)
        yield made


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
