"""A cluster that has all that the demo needs, and what preflight finds in it."""

from __future__ import annotations

import base64
import json
from typing import Any

from moaa.kubernetes import names
from moaa.kubernetes.kinds import DEPLOYMENTS
from moaa.placement import helm_values
from moaa.preflight import cluster
from moaa.preflight.finding import Finding
from moaa.preflight.kinds import (
    ACCOUNTS,
    NODES,
    RUNTIMES,
    SECRETS,
)
from moaa.recipe import Recipe
from moaa.recipe.load import load_file
from moaa.stages.table import STAGES
from tests.support.fake_cluster import FakeCluster
from tests.support.memory_store import MemoryStore
from tests.support.paths import PAPER

SETS = [
    "runtime.engines.kind=kubernetes",
    "runtime.launcher.kind=trainer",
    "runtime.cluster.image_pull_secrets=[registry]",
    "models.qwen2-72b.endpoint={url: https://x/v1, key_env: QWEN_KEY}",
]


def recipe(*sets: str) -> Recipe:
    return load_file(PAPER, [*SETS, *sets]).recipe


def named(name: str, **more: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, **more}


def secret(name: str, *keys: str, kind: str = "Opaque") -> dict[str, Any]:
    return named(
        name, type=kind, data={key: base64.b64encode(b"never shown").decode() for key in keys}
    )


def node(name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB"}}
    allocatable = {"cpu": "96", "memory": "1100Gi", "nvidia.com/gpu": "8"}
    return {"metadata": metadata, "spec": {}, "status": {"allocatable": allocatable}}


def deployment(model: str, found: Recipe) -> dict[str, Any]:
    dns = names.dns(model)
    spec = json.dumps(helm_values.spec(model, found.models[model]))
    return {
        "metadata": {
            "name": f"moaa-{dns}",
            "labels": {names.MODEL: dns},
            "annotations": {helm_values.SPEC: spec},
        }
    }


def healthy(*, inside: bool = False) -> FakeCluster:
    found = recipe()
    return (
        FakeCluster(inside=inside)
        .put(DEPLOYMENTS, *(deployment(model, found) for model in helm_values.served(found)))
        .put(ACCOUNTS, named("moaa-pipeline"))
        .put(RUNTIMES, named("moaa-train-a100"))
        .put(SECRETS, secret("moaa-s3", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        .put(
            SECRETS,
            secret("moaa-env", "HF_TOKEN", "QWEN_KEY"),
            secret("registry", kind=cluster.PULL),
        )
        .put(NODES, *(node(f"n{i}") for i in range(4)))
    )


def look(there: FakeCluster, *sets: str, kubeflow: bool = False) -> list[Finding]:
    store: Any = MemoryStore()
    return list(cluster.findings(recipe(*sets), store, there, STAGES, kubeflow=kubeflow))  # type: ignore[arg-type]
