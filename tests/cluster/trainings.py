"""Trainings of a small model on a cluster: started, followed, and what is left of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from moaa import __version__
from moaa.errors import MoaaError
from moaa.ledger import Ledger
from moaa.progress import Progress
from moaa.recipe import schema
from moaa.recipe.schema import Launcher, Pool, Runtime
from moaa.train import launch, objects
from moaa.train.job import Job, Launch
from tests.cluster.s3 import S3
from tests.cluster.tools import Namespace
from tests.support.paths import ROOT
from tests.support.training import said

IMAGE = f"moaa/train:{__version__}-cpu"


VALUES = {
    "images": {"core": IMAGE, "train": IMAGE},
    "reaper": {"enabled": False},
    "kubeflow": {"enabled": False},
}


NUMBERS = {
    "learning_rate": 1e-3,
    "epochs": 2,
    "global_batch": 2,
    "max_length": 256,
    "zero_stage": 2,
    "packing": False,
}


ROWS = [
    {"id": str(n), "messages": said(f"What comes after {n}?", f"After {n} comes {n + 1}.")}
    for n in range(12)
]


POOLS = {"tight": Pool(gpus=0, cpus=0.5, memory_gib=0.4, shm_gib=0.1)}
"""A pool whose pods have too little memory to load torch."""


def runtime(ns: Namespace, **launcher: Any) -> Runtime:
    wanted = {"kind": "trainer", "ranks": 1, "nodes": 2, "device": "cpu", **launcher}
    return Runtime(
        launcher=Launcher(**wanted),
        cluster=schema.Cluster(namespace=ns.name, images=schema.Images(train=IMAGE)),
    )


def train(job: Job, runtime: Runtime, store: S3, ledger: Ledger | None = None) -> dict[str, Any]:
    with Progress("sft", "steps") as progress:
        return launch.run(Launch(job, runtime, POOLS), store.store, ledger or Ledger(), progress)[
            "facts"
        ]


def started(job: Job, runtime: Runtime, store: S3, kubeconfig: Path) -> subprocess.Popen[str]:
    """Start the launcher in a process of its own."""
    store.store.put(f"{job.output}/job.json", job.model_dump_json().encode())
    pools = json.dumps({name: pool.model_dump(mode="json") for name, pool in POOLS.items()})
    command = [
        sys.executable,
        "-m",
        "tests.cluster.launcher",
        job.model_dump_json(),
        runtime.model_dump_json(),
        pools,
    ]
    environment = {
        **os.environ,
        "KUBECONFIG": str(kubeconfig),
        "PYTHONPATH": str(ROOT),
        "MOAA_PROGRESS_S": "1",
    }
    return subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)


def there(ns: Namespace, kind: str, job: Job) -> bool:
    return bool(
        ns.kubectl("get", kind, objects.name_of(job), "-o", "name", "--ignore-not-found").strip()
    )


def pods(ns: Namespace, job: Job) -> list[dict[str, Any]]:
    return ns.items("pods", f"jobset.sigs.k8s.io/jobset-name={objects.name_of(job)}")


def checkpointed(job: Job, store: S3) -> Callable[[], bool]:
    return lambda: any(
        uri.endswith("/manifest.json") for uri, _ in store.store.list(f"{job.output}/checkpoints")
    )


def failure(job: Job, runtime: Runtime, store: S3) -> MoaaError:
    with pytest.raises(MoaaError) as found:
        train(job, runtime, store)
    print(found.value)
    return found.value
