"""The charts with a small server in vLLM's place, for tests on a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from tests.charts.render import PLATFORM
from tests.cluster.tools import Namespace

IMAGE = "python:3.11-slim"
START_S = 6
"""Seconds for which the fake engine says /health and does not answer."""
SERVING_KINDS = "all,cm,secret,netpol,pdb,hpa,pvc,role,rolebinding,sa"
KINDS = f"{SERVING_KINDS},quota,limitrange,trainingruntimes,cronjobs"
FAKE = {
    "extraVolumes": [
        {
            "name": "fake",
            "configMap": {
                "name": "fake",
                "items": [{"key": "server.py", "path": "vllm/entrypoints/openai/api_server.py"}],
            },
        }
    ],
    "extraVolumeMounts": [{"name": "fake", "mountPath": "/fake"}],
    "env": {"PYTHONPATH": "/fake", "FAKE_START_S": str(START_S)},
    "resources": {
        "requests": {"cpu": "20m", "memory": "64Mi"},
        "limits": {"cpu": "500m", "memory": "128Mi"},
    },
    "sizeGib": 1,
}


def serving(*models: dict[str, Any], **more: Any) -> dict[str, Any]:
    """Values with the fake engine in vLLM's place."""
    return {
        "images": {"serve": IMAGE, "core": IMAGE},
        "modelDefaults": FAKE,
        "poolDefaults": {"device": "cpu", "shmGib": 0.01},
        "drain": {"seconds": 20},
        "models": [{"source": "fake/model", **model} for model in models],
        **more,
    }


ALWAYS, LEASED = {"name": "always", "replicas": 1, "servedName": "Always-1B"}, {"name": "leased"}


def fake_engine(ns: Namespace) -> None:
    """The ConfigMap that the values of `serving` mount."""
    text = Path(__file__).with_name("fake_vllm.py").read_text()
    ns.apply(
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "fake"},
            "data": {"server.py": text},
        }
    )


def install(
    ns: Namespace, release: str, chart: Path, values: dict[str, Any], *more: str, wait: bool = True
) -> str:
    waiting = ("--wait", "--timeout", "120s") if wait else ()
    arguments = ("upgrade", "--install", release, str(chart), "--values", "-", *waiting, *more)
    return ns.helm(*arguments, given=yaml.safe_dump(values))


def without_reaper(ns: Namespace, values: dict[str, Any]) -> None:
    """The platform with the reaper's account and rights, and no pod of it: the image lacks it."""
    install(ns, "platform", PLATFORM, values, wait=False)
    ns.kubectl("scale", "deployment", "platform-reaper", "--replicas=0")


def names(ns: Namespace) -> set[str]:
    listed = ns.kubectl("get", KINDS, "-o", "name", "--ignore-not-found").split()
    return {name for name in listed if "kube-root-ca" not in name}


def pods(ns: Namespace, model: str) -> dict[str, dict[str, Any]]:
    """Return the pods of a model that are not being deleted, by uid."""
    found = ns.items("pods", f"moaa.dev/model={model}")
    return {
        each["metadata"]["uid"]: each
        for each in found
        if "deletionTimestamp" not in each["metadata"]
    }


def ready(pod: dict[str, Any]) -> bool:
    conditions = {each["type"]: each["status"] for each in pod["status"].get("conditions", [])}
    return conditions.get("Ready") == "True"


def client(ns: Namespace, name: str, labels: dict[str, str]) -> None:
    """Return a pod that waits for commands."""
    container = {
        "name": "c",
        "image": IMAGE,
        "command": ["sleep", "600"],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    security = {
        "runAsNonRoot": True,
        "runAsUser": 1000,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    spec = {
        "containers": [container],
        "securityContext": security,
        "terminationGracePeriodSeconds": 0,
    }
    ns.apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": labels},
            "spec": spec,
        }
    )
    ns.kubectl("wait", f"pod/{name}", "--for=condition=Ready", "--timeout=60s")
