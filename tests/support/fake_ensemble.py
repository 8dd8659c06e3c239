"""Leased Deployments on a KubeServer, with the part of the cluster that runs pods: they appear when
it scales up."""

from __future__ import annotations

import threading
from typing import Self

from moaa.kubernetes.kinds import DEPLOYMENTS, LEASES, PODS, SLICES, Object
from moaa.kubernetes.names import MODEL, PART_OF, dns
from tests.support.engine_server import EngineServer
from tests.support.kube_server import KubeServer
from tests.support.lease_objects import holders


def deployment(
    name: str, model: str, *, replicas: int = 0, annotations: dict[str, str] | None = None
) -> Object:
    labels = {PART_OF: "moaa", MODEL: dns(model)}
    return {
        "metadata": {"name": name, "labels": labels, "annotations": annotations or {}},
        "spec": {"replicas": replicas},
    }


def pod(name: str, model: str, status: Object) -> Object:
    return {"metadata": {"name": name, "labels": {MODEL: dns(model)}}, "spec": {}, "status": status}


def ready(restarts: int = 0) -> Object:
    return {
        "phase": "Running",
        "conditions": [
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "True"},
        ],
        "containerStatuses": [
            {"name": "vllm", "ready": True, "restartCount": restarts, "state": {"running": {}}}
        ],
    }


def unschedulable(why: str) -> Object:
    return {
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "False", "message": why}],
    }


def crashed(restarts: int, exit_code: int = 1, reason: str = "Error") -> Object:
    last = {
        "terminated": {
            "exitCode": exit_code,
            "reason": reason,
            "finishedAt": "2026-01-01T00:00:00Z",
        }
    }
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    status = {
        "name": "vllm",
        "ready": False,
        "restartCount": restarts,
        "state": state,
        "lastState": last,
    }
    return {
        "phase": "Running",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "containerStatuses": [status],
    }


class Ensemble:
    """Models by name on a KubeServer. Each pod is an EngineServer; `status` makes pods that never
    get ready instead."""

    def __init__(self, kube: KubeServer, *models: str, **annotations: str) -> None:
        self.kube = kube
        self.servers: dict[str, EngineServer] = {}
        """By pod."""
        self.status: Object | None = None
        self._models = {f"moaa-{dns(model)}": model for model in models}
        self._made = 0
        self._replicas: dict[str, int] = {}
        self._scaling: list[threading.Thread] = []
        self._lock = threading.Lock()
        for name, model in self._models.items():
            kube.put(
                DEPLOYMENTS,
                deployment(
                    name, model, annotations={f"moaa.dev/{k}": v for k, v in annotations.items()}
                ),
            )
        kube.after_patch = self._patched

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kube.after_patch = lambda found: None
        for thread in self._scaling:
            thread.join()
        for server in self.servers.values():
            server.__exit__()

    def start(self, model: str, restarts: int = 0) -> str:
        """One more pod of the model, ready: its name."""
        self._made += 1
        name = f"moaa-{dns(model)}-{self._made}"
        self.servers[name] = EngineServer(model, delay_s=0.01).__enter__()
        self.kube.put(PODS, pod(name, model, ready(restarts)))
        self.show(model)
        return name

    def scale_by_hand(self, model: str, replicas: int) -> None:
        """As somebody with kubectl does, who knows of no lease and removes them."""
        for kind, name in list(self.kube.objects):
            if kind == LEASES.plural:
                self.kube.remove(LEASES, name)
        found = self.kube.find(DEPLOYMENTS, f"moaa-{dns(model)}")
        found["spec"]["replicas"] = replicas
        self._patched(self.kube.put(DEPLOYMENTS, found))

    def kill(self, name: str, *, abruptly: bool = False) -> None:
        """Remove the pod. `abruptly`: it breaks its connections while still listed."""
        model = self.kube.find(PODS, name)["metadata"]["labels"][MODEL]
        server = self.servers.pop(name)
        if abruptly:
            server.__exit__()
        self.kube.remove(PODS, name)
        self.show(model)
        if not abruptly:
            server.__exit__()

    def show(self, model: str) -> None:
        """The model's EndpointSlices as its pods are now, one for each port."""
        mine = {
            name: server
            for name, server in self.servers.items()
            if name.startswith(f"moaa-{dns(model)}-")
        }
        for key in [
            name
            for kind, name in self.kube.objects
            if kind == "endpointslices" and name not in mine
        ]:
            if key.startswith(f"moaa-{dns(model)}-"):
                self.kube.remove(SLICES, key)
        for name, server in mine.items():
            pod_of_it = {"kind": "Pod", "name": name}
            endpoints = [
                {
                    "addresses": ["127.0.0.1"],
                    "conditions": {"ready": True},
                    "targetRef": pod_of_it,
                }
            ]
            ports = [{"name": "http", "port": int(server.url.split(":")[2].split("/")[0])}]
            self.kube.put(
                SLICES,
                {
                    "metadata": {"name": name, "labels": {MODEL: dns(model)}},
                    "endpoints": endpoints,
                    "ports": ports,
                },
            )

    def replicas(self, model: str) -> int:
        return self.kube.find(DEPLOYMENTS, f"moaa-{dns(model)}")["spec"]["replicas"]

    def holders(self, model: str) -> list[str]:
        return holders(self.kube, DEPLOYMENTS, f"moaa-{dns(model)}")

    def pods(self, model: str) -> list[str]:
        return [
            name
            for kind, name in self.kube.objects
            if kind == "pods" and name.startswith(f"moaa-{dns(model)}-")
        ]

    def _patched(self, found: Object) -> None:
        """As a controller: a little later than the answer to the request."""
        name, replicas = found["metadata"]["name"], found["spec"].get("replicas")
        if name not in self._models or (
            self._replicas.get(name) == replicas
        ):  # a killed pod stays away until a test starts another
            return
        self._replicas[name] = replicas
        self._scaling.append(threading.Thread(target=self._scale, args=(found,)))
        self._scaling[-1].start()

    def _scale(self, found: Object) -> None:
        with self._lock:
            model = self._models[found["metadata"]["name"]]
            while len(there := self.pods(model)) != (wanted := self.replicas(model)):
                if len(there) > wanted:
                    self._stop(there[-1])
                elif self.status is None:
                    self.start(model)
                else:
                    self._made += 1
                    self.kube.put(PODS, pod(f"moaa-{dns(model)}-{self._made}", model, self.status))

    def _stop(self, name: str) -> None:
        if name in self.servers:
            self.kill(name)
        else:
            self.kube.remove(PODS, name)
