"""A training on a cluster as plain data: a TrainJob of Kubeflow Trainer, or an Indexed Job with a
headless Service.

Both run `torchrun -m moaa.train` in pods of the train image, one pod for each node. torchrun reads
from PET_* variables where the other pods are. Trainer sets them for a TrainJob; for a Job they are
set here. A TrainJob uses only fields of Trainer 2.0 and later. The nodes and Secrets of its pods
are in the TrainingRuntime that the platform chart creates for each pool.
"""

from __future__ import annotations

import hashlib
import json
from typing import Final

from moaa.kubernetes import names
from moaa.kubernetes.kinds import JOBS, SERVICES, TRAIN_JOBS, Object
from moaa.placement import images
from moaa.placement import pods as placement
from moaa.placement.pod_spec import (
    HEAVY_TMP_GIB,
    KEPT_S,
    WRITABLE,
    Room,
    from_secret,
    plain,
    pod_spec,
)
from moaa.recipe.schema import StoreAddress
from moaa.recipe.secrets import S3_KEYS
from moaa.store.client import S3_SETTINGS, SESSION_TOKEN
from moaa.train import ranks
from moaa.train.job import Job, Launch

CONTAINER: Final = "node"
ACCOUNT: Final = "moaa-train"
"""The platform chart's account for trainings, to which a cloud's identity is bound."""
IS_TRAINING: Final = {"app.kubernetes.io/component": "training"}
"""Label of a training's pods for the platform chart's network policies."""
PORT: Final = 29500
"""The port on which the other pods connect to rank 0."""
SHM_GIB: Final = 2.0
"""Shared memory of a pod without a pool."""
_INDEX: Final = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def name_of(job: Job) -> str:
    """Return the training's name: the same for the same result.

    The output's address ends in the stage's fingerprint.
    """
    return names.training(job.kind, job.output.rsplit("/", 1)[1])


def job_in_pods(job: Job) -> Job:
    """Return the job in the form for pods.

    In pods the store's keys come from the Secret `runtime.cluster.s3_secret`, under their usual
    names, even if the recipe calls them otherwise on this machine.
    """
    store = job.store.model_dump(exclude={"access_key_env", "secret_key_env", "session_token_env"})
    return job.model_copy(update={"store": StoreAddress(**store)})


def train_job(launch: Launch, run_id: str) -> Object:
    """Return the TrainJob.

    Raises RecipeError if a node of the pool has fewer GPUs than ranks.
    """
    launcher, image = launch.launcher, launch.runtime.cluster.images.train
    trainer: Object = {
        "command": command(launch.job),
        "env": [*plain(_environment(launch)), *_named_secrets(launch)],
        "numNodes": launcher.nodes,
        "numProcPerNode": launcher.ranks,
        "resourcesPerNode": resources(launch),
    }
    if image:
        trainer["image"] = image
    runtime = {
        "apiGroup": "trainer.kubeflow.org",
        "kind": "TrainingRuntime",
        "name": names.runtime(launcher.pool),
    }
    spec = {"runtimeRef": runtime, "trainer": trainer}
    return {
        "apiVersion": TRAIN_JOBS.version,
        "kind": TRAIN_JOBS.name,
        "metadata": _metadata(launch.job, _labels(launch.job, run_id), wanted=spec),
        "spec": spec,
    }


def indexed_job(launch: Launch, run_id: str) -> Object:
    """Return the Job that does the same without Trainer; with several nodes it needs `service` too.

    Raises RecipeError like `train_job`.
    """
    nodes, labels, pod = launch.launcher.nodes, _labels(launch.job, run_id), _pod(launch)
    spec: Object = {
        "completionMode": "Indexed",
        "completions": nodes,
        "parallelism": nodes,
        "backoffLimit": 0,
        "ttlSecondsAfterFinished": KEPT_S,
        "template": {"metadata": {"labels": labels | IS_TRAINING}, "spec": pod},
    }
    return {
        "apiVersion": JOBS.version,
        "kind": JOBS.name,
        "metadata": _metadata(launch.job, labels, wanted={**spec, "template": pod}),
        "spec": spec,
    }


def service(owner: Object) -> Object:
    """Return the headless Service by which a Job's pods find each other.

    It is deleted with its Job, `owner`.
    """
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
    """Return the command of each pod."""
    torchrun = ["python3", "-m", "torch.distributed.run"]
    return [*torchrun, "-m", "moaa.train", job.kind, "--job", f"{job.output}/job.json"]


def resources(launch: Launch) -> dict[str, dict[str, str]]:
    """Return what a pod requests: the numbers of its pool; without a pool, one core and some GiB
    for each rank."""
    launcher = launch.launcher
    if launcher.pool is None:
        count = launcher.ranks
        return {
            "requests": {"cpu": f"{500 * count}m", "memory": f"{3 * count}Gi"},
            "limits": {"cpu": f"{count}", "memory": f"{8 * count}Gi"},
        }
    gpus = placement.training_gpus(launcher, launch.pools, launch.job.kind)
    asked = placement.requests(launch.pools[launcher.pool], gpus)
    return {"requests": asked, "limits": asked}


def _environment(launch: Launch) -> dict[str, str]:
    """Return the variables that are not secret. A rank has the cores of its GPU, or its share of
    the pod's."""
    pool, store = launch.pool, launch.job.store
    if pool is None:
        cores = 1.0
    else:
        cores = pool.cpus if pool.gpus else pool.cpus / launch.launcher.ranks
    threads = {"OMP_NUM_THREADS": str(max(1, int(cores)))}
    address = zip(S3_SETTINGS, (store.endpoint_url, store.region), strict=True)
    return {**ranks.ENVIRONMENT, **threads, **{name: value for name, value in address if value}}


def _s3_secrets(launch: Launch) -> list[Object]:
    """Return the store's keys; in a TrainJob the TrainingRuntime has them. None if a cloud's
    identity of the pod's account is enough."""
    secret = launch.runtime.cluster.s3_secret
    if secret is None:
        return []
    optional = (SESSION_TOKEN, *S3_SETTINGS)
    return [*from_secret(secret, S3_KEYS), *from_secret(secret, optional, optional=True)]


def _named_secrets(launch: Launch) -> list[Object]:
    """Return only the variables that the recipe lists: no endpoint's key goes to a training."""
    runtime = launch.runtime
    return from_secret(runtime.cluster.env_secret, sorted(set(runtime.secret_envs)))


def _pod(launch: Launch) -> Object:
    launcher, cluster, pool = launch.launcher, launch.runtime.cluster, launch.pool
    name = name_of(launch.job)
    # torch asks for the name of its user, who is only a number here.
    own = {**WRITABLE, "USER": "moaa"}
    own |= {
        "PET_NNODES": f"{launcher.nodes}",
        "PET_NPROC_PER_NODE": f"{launcher.ranks}",
        "PET_MASTER_PORT": f"{PORT}",
        "PET_MASTER_ADDR": f"{name}-0.{name}" if launcher.nodes > 1 else "127.0.0.1",
    }
    rank = {"name": "PET_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}
    container = {
        "name": CONTAINER,
        "image": images.of(launch.runtime, "train"),
        "command": command(launch.job),
        # A later entry of the same name wins: the recipe's address of the store.
        "env": [
            *_s3_secrets(launch),
            *plain(own | _environment(launch)),
            rank,
            *_named_secrets(launch),
        ],
        "resources": resources(launch),
    }
    room = Room(
        tmp_gib=HEAVY_TMP_GIB,
        shm_gib=pool.shm_gib if pool else SHM_GIB,
        node_selector=pool.node_selector if pool else {},
        toleration=pool.toleration if pool else None,
        image_pull_secrets=cluster.image_pull_secrets,
    )
    account: Object = {} if cluster.s3_secret else {"serviceAccountName": ACCOUNT}
    return pod_spec(
        container,
        room,
        subdomain=name,
        **account,
        automountServiceAccountToken=False,
        enableServiceLinks=False,
    )


def _labels(job: Job, run_id: str) -> dict[str, str]:
    return {**names.work_labels(run_id, job.kind), names.TRAINING: name_of(job)}


def _metadata(job: Job, labels: dict[str, str], wanted: Object) -> Object:
    """Return the metadata. `wanted`: the spec without the labels of the run, so that equal
    trainings of different runs have the same digest."""
    digest = hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).hexdigest()[:16]
    return {"name": name_of(job), "labels": labels, "annotations": {names.DIGEST: digest}}
