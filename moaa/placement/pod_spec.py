"""The parts that all pods made by moaa share, as plain data.

A namespace may require the `restricted` Pod Security Standard, so pods run without any privilege
and write only to their own volumes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from moaa.kubernetes.kinds import Object

KEPT_S: Final = 7 * 24 * 3600
"""How long a finished Job is kept, with its pods and logs."""
CORE_TMP_GIB: Final = 20
"""Limit of /tmp in a pod that only calls models: rows on their way to S3."""
HEAVY_TMP_GIB: Final = 2000
"""Limit of /tmp in a pod that serves or trains: the weights of a whole ensemble, or checkpoints."""
WRITABLE: Final[Mapping[str, str]] = {"HOME": "/tmp", "MOAA_CACHE": "/tmp/moaa"}
"""Environment of a pod whose root file system is read-only."""


@dataclass(frozen=True, slots=True)
class Room:
    """Which nodes a pod may run on, and how large its volumes may become."""

    tmp_gib: int
    shm_gib: float = 0
    node_selector: Mapping[str, str] = field(default_factory=dict)
    toleration: str | None = None
    image_pull_secrets: Sequence[str] = ()


def pod_spec(
    container: Object, room: Room, volumes: Sequence[tuple[str, Object]] = (), **fields: Any
) -> Object:
    """Return the spec of a pod with one container, which gets /tmp, /dev/shm and `volumes`.

    `volumes`: (path, volume) each. `fields`: further fields of the spec.
    """
    mounted = [("/tmp", {"name": "tmp", "emptyDir": {"sizeLimit": f"{room.tmp_gib}Gi"}})]
    if room.shm_gib:
        memory = {"medium": "Memory", "sizeLimit": f"{room.shm_gib:g}Gi"}
        mounted.append(("/dev/shm", {"name": "shm", "emptyDir": memory}))
    mounted += volumes
    restricted = {
        **container,
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": each["name"], "mountPath": path} for path, each in mounted],
    }
    spec: Object = {
        "restartPolicy": "Never",
        "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
        "imagePullSecrets": [{"name": name} for name in room.image_pull_secrets],
        "nodeSelector": dict(room.node_selector),
        "containers": [restricted],
        "volumes": [each for _, each in mounted],
        **fields,
    }
    if room.toleration:
        spec["tolerations"] = [{"key": room.toleration, "operator": "Exists"}]
    return spec


def plain(environment: Mapping[str, str]) -> list[dict[str, str]]:
    """Return a container's `env` for variables with plain values."""
    return [{"name": name, "value": value} for name, value in environment.items()]


def from_secret(secret: str, keys: Iterable[str], *, optional: bool = False) -> list[Object]:
    """Return a container's `env` for variables that are keys of a Secret."""
    return [
        {
            "name": key,
            "valueFrom": {
                "secretKeyRef": {
                    "name": secret,
                    "key": key,
                    **({"optional": True} if optional else {}),
                }
            },
        }
        for key in keys
    ]
