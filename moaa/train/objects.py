"""A training on a cluster as plain data: a TrainJob of Kubeflow Trainer, or an Indexed Job with a
headless Service.

Both run `torchrun -m moaa.train` in pods of the train image, one a node, and torchrun learns from
PET_* variables who the others are: Trainer sets them, and here the Job does. A TrainJob uses only
fields that Trainer 2.0 and all later ones know; where its pods are placed, and with which secrets,
says the TrainingRuntime that the platform chart makes for each pool.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Final

from moaa.kubernetes import names
from moaa.kubernetes.kinds import JOBS, SERVICES, TRAIN_JOBS, Object
from moaa.placement import images
from moaa.placement import pods as placement
from moaa.recipe.schema import Pool, Runtime
from moaa.train.job import Job

CONTAINER: Final = "node"
PORT: Final = 29500
"""Where rank 0 is met."""
KEPT_S: Final = 7 * 24 * 3600
"""A finished Job goes after so long, with its pods and logs."""
SHM_GIB, TMP_GIB = 2.0, 2000
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def name_of(job: Job) -> str:
    """The same for the same result: the output's address ends in its fingerprint."""
    return names.training(job.kind, job.output.rsplit("/", 1)[1])


def train_job(job: Job, runtime: Runtime, pools: Mapping[str, Pool], run_id: str) -> Object:
    """The TrainJob. Raises RecipeError where no node of its pool has as many GPUs as a node has
    ranks."""
    launcher = runtime.launcher
    trainer: Object = {
        "command": command(job),
        "env": _plain(_environment(job, runtime, pools)),
        "numNodes": launcher.nodes,
        "numProcPerNode": launcher.ranks,
        "resourcesPerNode": resources(job, runtime, pools),
    }
    if runtime.cluster.images.train:
        trainer["image"] = runtime.cluster.images.train
    reference = {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": names.runtime(launcher.pool),
    }
    spec = {"runtimeRef": reference, "trainer": trainer}
    metadata = _metadata(job, _labels(job, run_id), wanted=spec)
    return {
        "apiVersion": TRAIN_JOBS.version,
        "kind": TRAIN_JOBS.name,
        "metadata": metadata,
        "spec": spec,
    }


def indexed_job(job: Job, runtime: Runtime, pools: Mapping[str, Pool], run_id: str) -> Object:
    """The Job that does the same without Trainer. Of several nodes it needs `service` too. Raises
    as `train_job`."""
    launcher, labels, pod = runtime.launcher, _labels(job, run_id), _pod(job, runtime, pools)
    spec: Object = {
        "completionMode": "Indexed",
        "completions": launcher.nodes,
        "parallelism": launcher.nodes,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": KEPT_S,
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    metadata = _metadata(job, labels, wanted={**spec, "template": pod})
    return {"apiVersion": JOBS.version, "kind": JOBS.name, "metadata": metadata, "spec": spec}


def service(owner: Object) -> Object:
    """The headless Service by which a Job's pods find each other; it goes with its Job."""
    name, labels = owner["metadata"]["name"], owner["spec"]["template"]["metadata"]["labels"]
    reference = {
        "apiVersion": JOBS.version,
        "kind": JOBS.name,
        "name": name,
        "uid": owner["metadata"]["uid"],
    }
    return {
        "apiVersion": SERVICES.version,
        "kind": SERVICES.name,
        "metadata": {"name": name, "labels": labels, "ownerReferences": [reference]},
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {names.TRAINING: name},
            "ports": [{"name": "rendezvous", "port": PORT}],
        },
    }


def command(job: Job) -> list[str]:
    return [
        "python3",
        "-m",
        "torch.distributed.run",
        "-m",
        "moaa.train",
        job.kind,
        "--job",
        f"{job.output}/job.json",
    ]


def resources(job: Job, runtime: Runtime, pools: Mapping[str, Pool]) -> dict[str, dict[str, str]]:
    """What a node's pod asks for: its pool's numbers; without a pool, on any node, a core and some
    GiB for each rank."""
    launcher = runtime.launcher
    if launcher.pool is None:
        ranks = launcher.ranks
        return {
            "requests": {"cpu": f"{500 * ranks}m", "memory": f"{3 * ranks}Gi"},
            "limits": {"cpu": f"{ranks}", "memory": f"{8 * ranks}Gi"},
        }
    asked = placement.requests(
        pools[launcher.pool], placement.training_gpus(launcher, pools, job.kind)
    )
    return {"requests": asked, "limits": asked}


def _environment(job: Job, runtime: Runtime, pools: Mapping[str, Pool]) -> dict[str, str]:
    """What is no secret. A rank has the cores of its GPU, or its share of the pod's."""
    pool = pools[runtime.launcher.pool] if runtime.launcher.pool else None
    cores = 1.0 if pool is None else pool.cpus if pool.gpus else pool.cpus / runtime.launcher.ranks
    found = {
        "PYTHONUNBUFFERED": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "TQDM_DISABLE": "1",
        "OMP_NUM_THREADS": str(max(1, int(cores))),
    }
    if job.store.endpoint_url:
        found["AWS_ENDPOINT_URL_S3"] = job.store.endpoint_url
    if job.store.region:
        found["AWS_REGION"] = job.store.region
    return found


def _pod(job: Job, runtime: Runtime, pools: Mapping[str, Pool]) -> Object:
    launcher, cluster, name = runtime.launcher, runtime.cluster, name_of(job)
    pool = pools[launcher.pool] if launcher.pool else None
    own = {
        "HOME": "/tmp",
        "USER": "moaa",
        "MOAA_CACHE": "/tmp/moaa",
    }  # torch asks for the name of its user, a mere number
    own |= {
        "PET_NNODES": f"{launcher.nodes}",
        "PET_NPROC_PER_NODE": f"{launcher.ranks}",
        "PET_MASTER_PORT": f"{PORT}",
    }
    own["PET_MASTER_ADDR"] = f"{name}-0.{name}" if launcher.nodes > 1 else "127.0.0.1"
    rank = {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}
    secrets = [
        {"secretRef": {"name": cluster.s3_secret}},
        {"secretRef": {"name": cluster.env_secret, "optional": True}},
    ]
    shm = pool.shm_gib if pool else SHM_GIB
    container = {
        "name": CONTAINER,
        "image": images.of(runtime, "train"),
        "command": command(job),
        "env": [*_plain(own | _environment(job, runtime, pools)), rank],
        "envFrom": secrets,
        "resources": resources(job, runtime, pools),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ],
    }
    found: Object = {
        "restartPolicy": "Never",
        "subdomain": name,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "imagePullSecrets": [{"name": each} for each in cluster.image_pull_secrets],
        "containers": [container],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": f"{TMP_GIB}Gi"}},
            {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{shm:g}Gi"}},
        ],
    }
    if pool:
        found["nodeSelector"] = pool.node_selector
        if pool.toleration:
            found["tolerations"] = [{"key": pool.toleration, "operator": "Exists"}]
    return found


def _labels(job: Job, run_id: str) -> dict[str, str]:
    return {**names.work_labels(run_id, job.kind), names.TRAINING: name_of(job)}


def _metadata(job: Job, labels: dict[str, str], wanted: Object) -> Object:
    """`wanted`: the spec without the run's own labels, so that its digest is the same for whoever
    wants the same."""
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    return {"name": name_of(job), "labels": labels, "annotations": {names.DIGEST: digest}}


def _plain(environment: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"name": name, "value": value} for name, value in environment.items()]
