"""What the charts do differently when they see a cluster: replicas that leases and autoscalers have
set, a missing Trainer.

The cluster is a small server of ours that knows just what helm asks.
"""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.render import FOR, PLATFORM, SERVING, helm, needs_helm, of, parsed

pytestmark = needs_helm
TRAINER = "trainer.kubeflow.org/v1alpha1"
KINDS = {
    "v1": ("ConfigMap", "Pod", "Secret", "Service", "ServiceAccount"),
    "admissionregistration.k8s.io/v1": (
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
    ),
    "apps/v1": ("Deployment",),
    "autoscaling/v2": ("HorizontalPodAutoscaler",),
    "batch/v1": ("CronJob",),
    "coordination.k8s.io/v1": ("Lease",),
    "networking.k8s.io/v1": ("NetworkPolicy",),
    "policy/v1": ("PodDisruptionBudget",),
    "rbac.authorization.k8s.io/v1": ("Role", "RoleBinding"),
    TRAINER: ("TrainingRuntime",),
}
LEASES = "/apis/coordination.k8s.io/v1/namespaces/moaa/leases"
SECRET = "/api/v1/namespaces/moaa/secrets/moaa-engines"
IDLE = "moaa.dev/idle-replicas"


class Api:
    """An API server with a `default` service account and these Deployments."""

    def __init__(self, folder: Path) -> None:
        self.deployments: dict[str, dict[str, Any]] = {}
        self.secret: dict[str, Any] | None = None
        self.leases: list[dict[str, Any]] = []
        self.unknown: set[str] = set()
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path == "/openapi/v2":  # of nothing, in protobuf's words
                    self.send_response(200)
                    self.end_headers()
                    return
                found = api.answer(path)
                missing = {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "reason": "NotFound",
                    "code": 404,
                }
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(found or missing).encode())

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        cluster = {
            "name": "a",
            "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"},
        }
        context = {"name": "a", "context": {"cluster": "a", "user": "a"}}
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [cluster],
            "contexts": [context],
            "current-context": "a",
        }
        self.kubeconfig = folder / "kubeconfig"
        self.kubeconfig.write_text(yaml.safe_dump(config | {"users": [{"name": "a", "user": {}}]}))

    def answer(self, path: str) -> dict[str, Any] | None:
        """Answer discovery, as helm reads it, and return the objects that the charts look up."""
        known = {version: kinds for version, kinds in KINDS.items() if version not in self.unknown}
        for version, kinds in known.items():
            if path == f"/{'apis' if '/' in version else 'api'}/{version}":
                names = [(kind, kind.lower()) for kind in kinds]
                resources = [
                    {
                        "name": plural(low),
                        "singularName": low,
                        "namespaced": True,
                        "kind": kind,
                        "verbs": ["get"],
                    }
                    for kind, low in names
                ]
                return {"kind": "APIResourceList", "groupVersion": version, "resources": resources}
        versions = [
            {"groupVersion": each, "version": each.split("/")[1]} for each in known if "/" in each
        ]
        groups = [
            {"name": v["groupVersion"].split("/")[0], "versions": [v], "preferredVersion": v}
            for v in versions
        ]
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}
        answers: dict[str, Any] = {
            "/version": {"major": "1", "minor": "36", "gitVersion": "v1.36.3"},
            "/api": {"kind": "APIVersions", "versions": ["v1"]},
            "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups},
            "/openapi/v3": {"paths": {}},
            "/api/v1/namespaces/moaa/serviceaccounts/default": account,
            SECRET: self.secret,
            LEASES: {"kind": "LeaseList", "apiVersion": "v1", "items": self.leases},
        }
        name = path.removeprefix("/apis/apps/v1/namespaces/moaa/deployments/")
        return answers.get(path) or self.deployments.get(name)

    def has(self, name: str, replicas: int, annotations: dict[str, str]) -> None:
        own = {"meta.helm.sh/release-name": "ex", "meta.helm.sh/release-namespace": "moaa"}
        labels = {"app.kubernetes.io/managed-by": "Helm"}
        metadata = {"name": name, "labels": labels, "annotations": own | annotations}
        self.deployments[name] = {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": metadata,
            "spec": {"replicas": replicas},
        }

    def template(
        self, chart: Path, values: dict[str, Any], folder: Path
    ) -> subprocess.CompletedProcess[str]:
        (folder / "values.yaml").write_text(yaml.safe_dump(values))
        command = [
            "helm",
            "template",
            "ex",
            str(chart),
            *FOR,
            "--namespace",
            "moaa",
            "--dry-run=server",
        ]
        if helm("version", "--short").stdout.startswith(
            "v3"
        ):  # which else asks the cluster for objects, not for kinds
            command.append("--validate")
        command += ["--values", f"{folder}/values.yaml"]
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Api]:
    made = Api(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


def plural(kind: str) -> str:
    return f"{kind[:-1]}ies" if kind.endswith("y") else f"{kind}s"


@dataclass
class Case:
    name: str
    there: tuple[int, dict[str, str]] | None
    """Replicas and annotations of the Deployment in the cluster before the upgrade."""
    replicas: int
    """Replicas after the upgrade."""
    model: dict[str, Any] = field(default_factory=dict)
    leased: bool = False


HPA = {"replicas": 2, "autoscaling": {"kind": "hpa", "maxReplicas": 6}}
CASES = [
    Case("installed for the first time", None, 0),
    Case("idle", (0, {IDLE: "0"}), 0),
    Case("leased and up", (1, {IDLE: "0"}), 1, leased=True),
    Case("leased and up threefold", (3, {IDLE: "0"}), 3, leased=True),
    Case("given back and not yet down: the reaper's work", (1, {IDLE: "0"}), 1),
    Case("always on", (2, {IDLE: "2"}), 2, {"replicas": 2}),
    Case("always on, and scaled down by hand", (0, {IDLE: "2"}), 2, {"replicas": 2}),
    Case("always on, more wanted", (1, {IDLE: "1"}), 3, {"replicas": 3}),
    Case("always on, fewer wanted", (3, {IDLE: "3"}), 1, {"replicas": 1}),
    Case("always on, fewer wanted, and leased", (3, {IDLE: "3"}), 3, {"replicas": 1}, leased=True),
    Case("always on, only leased from now", (2, {IDLE: "2"}), 0),
    Case("leased, and always on from now", (1, {IDLE: "0"}), 2, {"replicas": 2}, leased=True),
    Case("autoscaled for the first time", None, 2, HPA),
    Case("autoscaled", (5, {IDLE: "6"}), 5, HPA),
    Case("autoscaled below the new least", (1, {IDLE: "6"}), 2, HPA),
    Case("another chart's annotations", (3, {}), 1, {"replicas": 1}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_upgrade_keeps_what_leases_and_autoscalers_have_scaled(
    api: Api, tmp_path: Path, case: Case
) -> None:
    if case.there:
        api.has("ex-m", *case.there)
    for held in ("Deployment/ex-other", *(["Deployment/ex-m"] if case.leased else [])):
        api.leases.append({"metadata": {"annotations": {"moaa.dev/holds": held}}})
    api.leases.append({"metadata": {"name": "of-somebody-else"}})
    done = api.template(
        SERVING, {"models": [{"name": "m", "source": "a/b", **case.model}]}, tmp_path
    )
    assert not done.returncode, done.stderr
    assert of("Deployment", parsed(done.stdout))["spec"]["replicas"] == case.replicas


def test_a_cluster_without_trainer_is_told_what_to_do(api: Api, tmp_path: Path) -> None:
    assert "TrainingRuntime" in api.template(PLATFORM, {}, tmp_path).stdout
    api.unknown.add(TRAINER)
    done = api.template(PLATFORM, {}, tmp_path)
    assert done.returncode
    assert "Kubeflow Trainer is not installed" in done.stderr
    assert "trainer.enabled=false" in done.stderr
    assert not api.template(PLATFORM, {"trainer": {"enabled": False}}, tmp_path).returncode


def engines_key(api: Api, folder: Path) -> str | None:
    """The key in the Secret that an upgrade of release `ex` writes; None if it writes none."""
    done = api.template(SERVING, {"models": [{"name": "m", "source": "a/b"}]}, folder)
    assert not done.returncode, done.stderr
    found = [each for each in parsed(done.stdout) if each["kind"] == "Secret"]
    return found[0]["data"]["VLLM_API_KEY"] if found else None


def test_an_upgrade_keeps_the_engines_key(api: Api, tmp_path: Path) -> None:
    first, other = engines_key(api, tmp_path), engines_key(api, tmp_path)
    assert first
    assert other
    assert first != other, "each installation has its own"
    metadata: dict[str, Any] = {"name": "moaa-engines", "namespace": "moaa"}
    metadata["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
    metadata["annotations"] = {
        "meta.helm.sh/release-name": "ex",
        "meta.helm.sh/release-namespace": "moaa",
    }
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata}
    api.secret = secret | {"data": {"VLLM_API_KEY": first}}
    assert engines_key(api, tmp_path) == first


@pytest.mark.parametrize("owner", [{}, {"meta.helm.sh/release-name": "another"}])
def test_a_key_that_somebody_else_made_is_used_as_it_is(
    api: Api, tmp_path: Path, owner: dict[str, str]
) -> None:
    metadata = {"name": "moaa-engines", "annotations": owner}
    api.secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": {}}
    assert engines_key(api, tmp_path) is None
