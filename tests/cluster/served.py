"""The chart with its gateway on a cluster, and what a client of it sees."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import yaml

from tests.charts.render import SERVING
from tests.cluster.charts import install
from tests.cluster.s3 import S3, forwarded
from tests.cluster.tools import Namespace, until
from tests.support.paths import ROOT

KEY = "a-key-of-a-client"
TINY = {"requests": {"cpu": "50m", "memory": "128Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}}


@dataclass
class Served:
    """The installed chart; `urls`: each replica of the gateway, forwarded to this machine."""

    ns: Namespace
    s3: S3
    urls: list[str]

    def ask(
        self, model: str, text: str = "Hi", *, at: int = 0, stream: bool = False
    ) -> tuple[int, str, str]:
        """Return status, revision and body."""
        body = {
            "model": model,
            "messages": [{"role": "user", "content": text}],
            "max_tokens": 8,
            "temperature": 0,
        }
        request = urllib.request.Request(
            f"{self.urls[at]}/v1/chat/completions",
            json.dumps(body | {"stream": stream}).encode(),
            {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"},
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as reply:
                return reply.status, reply.headers.get("x-moaa-revision", ""), reply.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, "", error.read().decode()

    def revisions(self, count: int = 20) -> Counter[str]:
        """Ask so many conversations, at both replicas in turn; all must be answered."""
        found: Counter[str] = Counter()
        for number in range(count):
            code, revision, body = self.ask("aligned", f"{number}", at=number % 2)
            assert code == 200, body
            found[revision] += 1
        return found

    def moaa(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the command line against this namespace."""
        with self.start(*arguments) as process:
            try:
                out, error = process.communicate(timeout=300)
            except BaseException:
                process.kill()
                raise
        return subprocess.CompletedProcess(arguments, process.returncode, out, error)

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start the command line against this namespace."""
        environ = {**os.environ, **self.s3.outside, "MOAA_NAMESPACE": self.ns.name}
        return subprocess.Popen(
            [sys.executable, "-m", "moaa.cli", *arguments],
            env={**environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@contextmanager
def gateways_of(
    ns: Namespace, store: S3, values: dict[str, Any], *, wait: bool = True
) -> Iterator[Served]:
    """Install the chart as `ens`, and wait until both replicas of its gateway answer; with `wait`
    for its engines too."""
    ns.apply(secrets())
    install(ns, "ens", SERVING, values, wait=wait)
    with connected(ns, store) as made:
        yield made


@contextmanager
def connected(ns: Namespace, store: S3) -> Iterator[Served]:
    """Reach both replicas of the gateway that was installed here, as soon as they answer."""
    with ExitStack() as stack:
        pods = until(lambda: gateways(ns), "two gateways")
        ports = [stack.enter_context(forwarded(ns, f"pod/{pod}", 8080)) for pod in pods]
        made = Served(ns, store, [f"http://127.0.0.1:{port}" for port in ports])
        until(lambda: all(answers(f"{url}/health") for url in made.urls), "both answer")
        yield made


def gateways(ns: Namespace) -> list[str]:
    found = ns.items("pods", "app.kubernetes.io/component=gateway")
    names = [each["metadata"]["name"] for each in found if each["status"]["phase"] == "Running"]
    return names if len(names) == 2 else []


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


def secrets() -> list[dict[str, Any]]:
    """The key of a client, and its hash for the gateway."""
    return [secret("client", {"API_KEY": KEY}), secret("moaa-gateway-keys", keys())]


def secret(name: str, data: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}


def keys() -> dict[str, str]:
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    given = {"keys": [{"name": "test", "sha256": digest, "wake": True}]}
    return {"keys.yaml": yaml.safe_dump(given)}
