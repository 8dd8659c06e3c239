"""A real S3 inside the cluster: SeaweedFS in a pod of its own, reached from here through a
port-forward."""

from __future__ import annotations

import secrets
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from moaa.store import Store
from moaa.store import local as local_s3
from tests.cluster.tools import Namespace, until
from tests.support.clients import free_port

IMAGE = "python:3.11-slim"
BUCKET = "moaa"
START = (
    "until [ -x /weed/weed ]; do sleep 0.2; done; mkdir -p /data/s3; "
    "exec /weed/weed mini -dir=/data/s3 -ip=127.0.0.1 -ip.bind=0.0.0.0 -s3.port=8333 -bucket="
    + BUCKET
    + " -admin.ui=false -webdav=false "
    "-master.telemetry=false -s3.autoCreateBucket=false -s3.port.iceberg=0 -s3.port.lance=0"
)


class S3:
    """The server: its address for pods (`inside`), what our own environment must hold to reach it
    (`outside`), a `store`."""

    def __init__(self, ns: Namespace, keys: dict[str, str], port: int) -> None:
        self.inside = f"http://s3.{ns.name}.svc:8333"
        self.outside = {
            **keys,
            "AWS_ENDPOINT_URL_S3": f"http://127.0.0.1:{port}",
            "AWS_REGION": "us-east-1",
        }
        self.store = Store(f"s3://{BUCKET}/test", environ=self.outside)

    def secret(self, ns: Namespace, name: str = "moaa-s3") -> None:
        """Create the Secret with which the pods of a namespace reach it."""
        data = {**self.outside, "AWS_ENDPOINT_URL_S3": self.inside}
        ns.apply(
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}
        )

    def upload(self, folder: Path, uri: str) -> None:
        """Put the files of a folder below an address."""
        for path in folder.iterdir():
            self.store.upload(path, f"{uri}/{path.name}")


@contextmanager
def s3(ns: Namespace) -> Iterator[S3]:
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16)}
    ns.apply([_pod(keys), _service()])
    ns.kubectl("wait", "pod/s3", "--for=jsonpath={.status.phase}=Running", "--timeout=120s")
    ns.kubectl("cp", local_s3.weed(), "s3:/weed/part", timeout_s=120)
    ns.kubectl("exec", "s3", "--", "sh", "-c", "chmod +x /weed/part && mv /weed/part /weed/weed")
    ns.kubectl("wait", "pod/s3", "--for=condition=Ready", "--timeout=60s")
    with forwarded(ns, "pod/s3", 8333) as port:
        made = S3(ns, keys, port)
        until(lambda: _answers(made.store), "an answer of S3", 60)
        yield made


@contextmanager
def forwarded(ns: Namespace, target: str, port: int) -> Iterator[int]:
    """Forward a local port, again after each broken connection: kubectl's own forward stops at the
    first."""
    local = free_port()
    command = ["kubectl", "-n", ns.name, "port-forward", target, f"{local}:{port}"]
    over = threading.Event()
    running: list[subprocess.Popen[bytes]] = []

    def keep() -> None:
        while not over.is_set():
            running[:] = [
                subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ]
            running[0].wait()
            over.wait(0.5)

    keeper = threading.Thread(target=keep, daemon=True)
    keeper.start()
    try:
        yield local
    finally:
        over.set()
        while keeper.is_alive():
            for each in running:
                each.terminate()
            keeper.join(0.5)


def _answers(store: Store) -> bool:
    from moaa.errors import StoreError

    try:
        store.check()
    except StoreError:
        return False
    return True


def _pod(keys: dict[str, str]) -> dict[str, Any]:
    mounts = {"weed": "/weed", "data": "/data"}
    container = {
        "name": "s3",
        "image": IMAGE,
        "imagePullPolicy": "IfNotPresent",
        "command": ["sh", "-c", START],
        "env": [
            {"name": name, "value": value}
            for name, value in {**keys, "HOME": "/data", "GOMEMLIMIT": "2GiB"}.items()
        ],
        "resources": {
            "requests": {"cpu": "100m", "memory": "256Mi"},
            "limits": {"cpu": "1", "memory": "5Gi"},
        },
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "readinessProbe": {
            "httpGet": {"path": "/status", "port": 8333},
            "periodSeconds": 1,
            "timeoutSeconds": 10,
            "failureThreshold": 30,
        },
        "volumeMounts": [{"name": name, "mountPath": path} for name, path in mounts.items()],
    }
    spec = {
        "containers": [container],
        "volumes": [{"name": name, "emptyDir": {}} for name in mounts],
        "terminationGracePeriodSeconds": 1,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": 1000,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "s3", "labels": {"app": "s3"}},
        "spec": spec,
    }


def _service() -> dict[str, Any]:
    spec = {"selector": {"app": "s3"}, "ports": [{"port": 8333}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s3"}, "spec": spec}
