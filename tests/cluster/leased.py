"""Small engines as Deployments that can be leased, and accounts to lease them by."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from moaa.kubernetes import leases, names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import DEPLOYMENTS, Kind
from tests.charts.render import PLATFORM
from tests.cluster.charts import fake_engine, install
from tests.cluster.tools import Namespace, namespace, run

IMAGE = "python:3.11-slim"
SERVER = ["python3", "/fake/server.py", "--port", "8000"]


@contextmanager
def with_engines(name: str) -> Iterator[Namespace]:
    """Make a namespace with the fake engine's script and the platform chart."""
    with namespace(name) as made:
        fake_engine(made)
        values = {
            "images": {"core": IMAGE, "train": IMAGE},
            "reaper": {"enabled": False},
        }
        install(made, "platform", PLATFORM, values)
        yield made


def engine(
    ns: Namespace,
    model: str,
    *,
    replicas: int = 1,
    image: str = IMAGE,
    command: list[str] | None = None,
    answer_s: float = 0,
    resources: dict[str, Any] | None = None,
    init: list[str] | None = None,
) -> str:
    """Create a Deployment at 0 replicas and its Service, as the chart does; return its name."""
    name, labels = (
        f"moaa-{names.dns(model)}",
        {names.PART_OF: names.OURS, names.MODEL: names.dns(model)},
    )
    mounts = [{"name": "fake", "mountPath": "/fake"}]
    container = {
        "name": "vllm",
        "image": image,
        "command": command or [*SERVER, "--served-model-name", model, "--model", "x"],
        "imagePullPolicy": "IfNotPresent",
        "resources": resources or {"requests": {"cpu": "5m"}},
        "volumeMounts": mounts,
        "env": [
            {"name": "FAKE_ANSWER_S", "value": str(answer_s)},
            {"name": "PYTHONUNBUFFERED", "value": "1"},
        ],
        "ports": [{"name": "http", "containerPort": 8000}],
        "readinessProbe": {
            "httpGet": {"path": "/health", "port": 8000},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
        },
    }
    pod: dict[str, Any] = {
        "containers": [container],
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
        "volumes": [{"name": "fake", "configMap": {"name": "fake"}}],
    }
    if init:
        pod["initContainers"] = [
            {"name": "fetch", "image": IMAGE, "imagePullPolicy": "IfNotPresent", "command": init}
        ]
    deployment = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {
            "name": name,
            "labels": labels,
            "annotations": {names.REPLICAS: str(replicas)},
        },
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {names.MODEL: names.dns(model)}},
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }
    ports = [{"name": "http", "port": 8000, "targetPort": "http"}]
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "labels": labels},
        "spec": {"selector": {names.MODEL: names.dns(model)}, "ports": ports},
    }
    ns.apply([deployment, service])
    return name


def replicas(ns: Namespace, model: str) -> int:
    return ns.get("deployment", f"moaa-{names.dns(model)}")["spec"]["replicas"]


def holders(ns: Namespace, name: str, kind: str = "Deployment") -> list[str]:
    """Who holds a lease on the object."""
    return sorted(
        leases.holder_of(each)
        for each in ns.items("leases", leases.OURS)
        if leases.target_of(each) == f"{kind}/{name}"
    )


def hold(ns: Namespace, name: str, holder: str, kind: Kind = DEPLOYMENTS) -> None:
    """A lease of this holder, taken or renewed now."""
    with connected(os.environ["KUBECONFIG"], ns.name) as cluster:
        leases.Lease(cluster, kind, name, holder).renew()


def pods(ns: Namespace, model: str) -> list[str]:
    """Return the names of the model's pods that are not being deleted."""
    found = ns.items("pods", f"{names.MODEL}={names.dns(model)}")
    return [
        each["metadata"]["name"] for each in found if "deletionTimestamp" not in each["metadata"]
    ]


def kubeconfig_of(ns: Namespace, account: str, folder: Path) -> Path:
    """Return a KUBECONFIG with the rights of this service account alone."""
    config = json.loads(run("kubectl", "config", "view", "--raw", "--minify", "-o", "json"))
    token = ns.kubectl("create", "token", account, "--duration=1h").strip()
    config["users"] = [{"name": "account", "user": {"token": token}}]
    config["contexts"] = [
        {
            "name": "c",
            "context": {
                "cluster": config["clusters"][0]["name"],
                "user": "account",
                "namespace": ns.name,
            },
        }
    ]
    file = folder / f"{account}.json"
    file.write_text(json.dumps(config | {"current-context": "c"}))
    return file


@contextmanager
def connected(kubeconfig: Path | str, namespace: str) -> Iterator[Cluster]:
    """The cluster by this KUBECONFIG. (The client reads the variable once, when it is imported.)"""
    from kubernetes.config import kube_config

    before, kube_config.KUBE_CONFIG_DEFAULT_LOCATION = (
        kube_config.KUBE_CONFIG_DEFAULT_LOCATION,
        str(kubeconfig),
    )
    try:
        yield Cluster.connect(namespace)
    finally:
        kube_config.KUBE_CONFIG_DEFAULT_LOCATION = before


def as_account(ns: Namespace, account: str, folder: Path) -> AbstractContextManager[Cluster]:
    """The cluster as this account of the namespace sees it, with its rights alone."""
    return connected(kubeconfig_of(ns, account, folder), ns.name)
