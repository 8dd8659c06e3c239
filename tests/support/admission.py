"""Objects that moaa creates with the pipeline's account, and changes that the admission policies
refuse.

The rendered policies are tested with them without a cluster (tests/charts), and those that are
installed on a real one (tests/cluster).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from moaa.kubernetes import names
from moaa.kubernetes.kinds import Object
from moaa.pipelines import runner_job
from moaa.recipe.load import load_file
from moaa.recipe.schema import Cluster, Images, Launcher, Runtime, Sft, StoreAddress
from moaa.train.job import Job, Launch
from tests.support.paths import RECIPES

Change = Callable[[Object], object]


def launch(namespace: str, image: str) -> Launch:
    """Return a training of two nodes, as a stage starts it."""
    root = "s3://moaa/guarded"
    job = Job(
        kind="sft",
        numbers=Sft(),
        base="b",
        data="d",
        output=f"{root}/sft/{'1' * 24}",
        store=StoreAddress(root=root, endpoint_url="http://s3:8333"),
        device="cpu",
    )
    where = Cluster(namespace=namespace, images=Images(train=image, core=image))
    launcher = Launcher(kind="trainer", ranks=1, nodes=2)
    runtime = Runtime(launcher=launcher, cluster=where, secret_envs=("HF_TOKEN",))
    return Launch(job, runtime, {})


def run(namespace: str, image: str, until: str | None = None, *sets: str) -> Object:
    """Return the runner Job of the demo, up to a stage if one is given."""
    loaded = load_file(
        RECIPES / "demo-cluster.yaml",
        [
            "runtime.engines.kind=kubernetes",
            "runtime.launcher.kind=trainer",
            f"runtime.cluster.namespace={namespace}",
            f"runtime.cluster.images={{core: '{image}', serve: '{image}'}}",
            *sets,
        ],
    )
    return runner_job.job(loaded, "demo-20260101-000000-abcd", runner_job.of_run(until))


def env(container: Object, **entry: Any) -> None:
    container.setdefault("env", []).append(entry)


def secret(name: str, key: str = "k") -> Object:
    return {"secretKeyRef": {"name": name, "key": key}}


VARIABLES: dict[str, Change] = {
    "a foreign secret": lambda c: env(c, name="X", valueFrom=secret("other")),
    "a key of the store under another name": lambda c: env(
        c, name="X", valueFrom=secret("moaa-s3", "AWS_SECRET_ACCESS_KEY")
    ),
    "a key of an endpoint under another name": lambda c: env(
        c, name="X", valueFrom=secret("moaa-env", "OPENAI_KEY")
    ),
    "a key inside another value": lambda c: env(c, name="HOME", value="$(AWS_SECRET_ACCESS_KEY)"),
    "a preloaded library": lambda c: env(c, name="LD_PRELOAD", value="/tmp/x.so"),
    "a Python path": lambda c: env(c, name="PYTHONPATH", value="/tmp"),
    "a warning that opens a browser": lambda c: env(
        c, name="PYTHONWARNINGS", value="all:0:antigravity.x:0:0"
    ),
    "a browser": lambda c: env(c, name="BROWSER", value="/bin/sh -c id %s"),
}
"""Changes of a container, or of a TrainJob's trainer."""


def _another_account() -> Object:
    pod = {"template": {"spec": {"serviceAccountName": "moaa-reaper"}}}
    job = {"name": "node", "template": {"spec": pod}}
    return {"template": {"spec": {"replicatedJobs": [job]}}}


def _file(path: str) -> Object:
    field = {"fieldPath": f"metadata.annotations['{runner_job.RECIPE}']"}
    return {"path": path, "mode": 0o755, "fieldRef": field}


def _of_trainer(change: Change, spec: Object) -> None:
    change(spec["trainer"])


def _of_container(change: Change, pod: Object) -> None:
    change(container(pod))


TRAIN_JOBS: dict[str, Change] = {
    "another runtime": lambda spec: spec["runtimeRef"].update(name="torch-distributed"),
    "a cluster's runtime": lambda spec: spec["runtimeRef"].update(kind="ClusterTrainingRuntime"),
    "an image": lambda spec: spec["trainer"].update(image="evil:1"),
    "a shell": lambda spec: spec["trainer"].update(command=["sh", "-c", "id"]),
    "another module": lambda spec: spec["trainer"]["command"].__setitem__(4, "http.server"),
    "a key in the command": lambda spec: spec["trainer"]["command"].__setitem__(
        7, "s3://$(HF_TOKEN)/job.json"
    ),
    "arguments": lambda spec: spec["trainer"].update(args=["x"]),
    "an endpoint's key": lambda spec: env(
        spec["trainer"], name="OPENAI_KEY", valueFrom=secret("moaa-env", "OPENAI_KEY")
    ),
    "an initializer": lambda spec: spec.update(
        initializer={"dataset": {"storageUri": "hf://x", "env": [{"name": "A", "value": "b"}]}}
    ),
    "labels": lambda spec: spec.update(labels={"moaa.dev/model": "m"}),
    "another account": lambda spec: spec.update(
        runtimePatches=[{"manager": "x", "trainingRuntimeSpec": _another_account()}]
    ),
    **{what: partial(_of_trainer, change) for what, change in VARIABLES.items()},
}
"""Changes of a TrainJob's spec."""

JOBS: dict[str, Change] = {
    "an image": lambda pod: container(pod).update(image="evil:1"),
    "a shell": lambda pod: container(pod).update(command=["sh", "-c", "id"]),
    "a longer command": lambda pod: container(pod)["command"].append("x"),
    "arguments": lambda pod: container(pod).update(args=["x"]),
    "the reaper's account": lambda pod: pod["spec"].update(serviceAccountName="moaa-reaper"),
    "a file of the node": lambda pod: pod["spec"]["volumes"].append(
        {"name": "h", "hostPath": {"path": "/"}}
    ),
    "a port of the node": lambda pod: container(pod).update(
        ports=[{"containerPort": 80, "hostPort": 80}]
    ),
    "the node's network": lambda pod: pod["spec"].update(hostNetwork=True),
    "a secret as a file": lambda pod: pod["spec"]["volumes"].append(
        {"name": "s", "secret": {"secretName": "other"}}
    ),
    "a token as a file": lambda pod: pod["spec"]["volumes"].append(
        {"name": "t", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}
    ),
    "an annotation as a program": lambda pod: pod["spec"]["volumes"].append(
        {"name": "a", "downwardAPI": {"items": [_file("moaa")]}}
    ),
    "a volume over the image's programs": lambda pod: container(pod)["volumeMounts"].append(
        {"name": "tmp", "mountPath": "/usr/local/bin"}
    ),
    "a folder of modules": lambda pod: container(pod).update(workingDir="/etc/moaa"),
    "privileges": lambda pod: container(pod)["securityContext"].update(
        privileged=True, allowPrivilegeEscalation=True
    ),
    "root": lambda pod: pod["spec"].pop("securityContext"),
    "root in the container": lambda pod: container(pod)["securityContext"].update(
        runAsNonRoot=False, runAsUser=0
    ),
    "all system calls": lambda pod: container(pod)["securityContext"].update(
        seccompProfile={"type": "Unconfined"}
    ),
    "capabilities": lambda pod: container(pod)["securityContext"].update(
        capabilities={"add": ["SYS_ADMIN"]}
    ),
    "another container": lambda pod: pod["spec"]["containers"].append(
        {"name": "x", "image": container(pod)["image"]}
    ),
    "all of a secret": lambda pod: container(pod).update(
        envFrom=[{"secretRef": {"name": "moaa-env"}}]
    ),
    "a field of the pod": lambda pod: env(
        container(pod), name="X", valueFrom={"fieldRef": {"fieldPath": "status.podIP"}}
    ),
    "a hook": lambda pod: container(pod).update(lifecycle={"preStop": {"sleep": {"seconds": 1}}}),
    "no label of moaa: no network policy": lambda pod: labels(pod).pop(names.PART_OF),
    "no labels": lambda pod: pod["metadata"].pop("labels"),
    "labels of an engine": lambda pod: labels(pod).update(
        {names.MODEL: "m", "app.kubernetes.io/name": "moaa-serving"}
    ),
    "labels of a gateway": lambda pod: labels(pod).update({runner_job.COMPONENT: "gateway"}),
    "a label of another Service": lambda pod: labels(pod).update(app="s3"),
    **{what: partial(_of_container, change) for what, change in VARIABLES.items()},
}
"""Changes of the pod that a Job makes, a training's or a run's."""

RUNS: dict[str, Change] = {
    "another command": lambda pod: container(pod)["command"].__setitem__(4, "fetch"),
    "a key in the command": lambda pod: container(pod)["command"].extend(
        ["--until", "$(HF_TOKEN)"]
    ),
    "the engines' key under another name": lambda pod: env(
        container(pod), name="X", valueFrom=secret("moaa-engines", names.ENGINES_KEY)
    ),
}
"""Changes of a run's pod. Its command ends with the recipe."""

TRAININGS: dict[str, Change] = {
    "an endpoint's key": lambda pod: env(
        container(pod), name="OPENAI_KEY", valueFrom=secret("moaa-env", "OPENAI_KEY")
    ),
    "a key in the command": lambda pod: container(pod)["command"].__setitem__(
        7, "s3://$(HF_TOKEN)/job.json"
    ),
    "a token": lambda pod: pod["spec"].update(automountServiceAccountToken=True),
    "labels of a run": lambda pod: labels(pod).update({runner_job.COMPONENT: "runner"}),
    "the right to call engines": lambda pod: labels(pod).update({names.CLIENT: "true"}),
    "the name of another training": lambda pod: labels(pod).update({names.TRAINING: "moaa-sft-2"}),
}
"""Changes of the pod of a training without Trainer."""


def container(pod: Object) -> Object:
    (only,) = pod["spec"]["containers"]
    made: Object = only
    return made


def labels(pod: Object) -> Object:
    found: Object = pod["metadata"]["labels"]
    return found
