"""The Job that runs programs of models, as plain data: it has no network and keeps nothing."""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from typing import Final

from moaa.kubernetes import names
from moaa.kubernetes.kinds import JOBS, Object
from moaa.placement import images
from moaa.placement.pod_spec import plain
from moaa.recipe.schema import Runtime
from moaa.sandbox import inside

SANDBOX: Final = "moaa.dev/sandbox"
"""The label of the Job and its pods. The platform chart's network policy refuses such pods every
connection. They have no label `part-of: moaa`, whose policies allow some connections."""
CONTAINER: Final = "programs"
COMMAND: Final = ("python3", "-B", "-m", "moaa.sandbox.inside")
START_S: Final = 600
"""How long the pod may take to start: its image may have to be pulled."""
KEPT_S: Final = 3600


def job(programs: Mapping[str, str], runtime: Runtime, run_id: str) -> Object:
    """Return the Job that runs these programs (by name). It always ends by itself."""
    labels = {SANDBOX: "true", names.RUN: names.label(run_id)}
    container = {
        "name": CONTAINER,
        "image": images.of(runtime, "core"),
        "command": list(COMMAND),
        "env": plain(inside.pack(programs)),
        "resources": {
            "requests": {"cpu": "1", "memory": "1Gi"},
            "limits": {"cpu": "2", "memory": "3Gi"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # A container runtime's own /dev/shm would be writable.
        "volumeMounts": [{"name": "shm", "mountPath": "/dev/shm", "readOnly": True}],
    }
    pod = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "hostNetwork": False,
        # Names of the cluster are not resolved here: there is no DNS server.
        "dnsPolicy": "None",
        "dnsConfig": {"nameservers": ["127.0.0.1"]},
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "imagePullSecrets": [{"name": name} for name in runtime.cluster.image_pull_secrets],
        "containers": [container],
        "volumes": [{"name": "shm", "emptyDir": {"sizeLimit": "1Mi"}}],
    }
    return {
        "apiVersion": JOBS.version,
        "kind": JOBS.name,
        "metadata": {"name": f"moaa-sandbox-{secrets.token_hex(6)}", "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": START_S + longest_s(len(programs)),
            "ttlSecondsAfterFinished": KEPT_S,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def longest_s(programs: int) -> int:
    """Return how long the programs may take, two at a time."""
    return math.ceil(inside.SHUT_WAIT_S + (inside.TIMEOUT_S + 1) * (programs + 1) / 2)
