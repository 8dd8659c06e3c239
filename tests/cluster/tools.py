"""kubectl and helm, as tests use them: each call has a time-out, and a failure shows what the
tool printed."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from tests.support import waiting

T = TypeVar("T")
needs_cluster = pytest.mark.skipif(
    "KUBECONFIG" not in os.environ, reason="KUBECONFIG names no cluster"
)


def run(*command: str, given: str | None = None, timeout_s: float = 120) -> str:
    done = tried(*command, given=given, timeout_s=timeout_s)
    assert not done.returncode, (
        f"{' '.join(command[:6])}… ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    )
    return done.stdout


def tried(
    *command: str, given: str | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run the command; return its result even if it failed."""
    return subprocess.run(command, input=given, capture_output=True, text=True, timeout=timeout_s)


class Namespace:
    """A namespace of its own for a test file."""

    def __init__(self, name: str) -> None:
        self.name = name

    def kubectl(self, *arguments: str, given: str | None = None, timeout_s: float = 120) -> str:
        return run("kubectl", "-n", self.name, *arguments, given=given, timeout_s=timeout_s)

    def helm(self, *arguments: str, given: str | None = None, timeout_s: float = 180) -> str:
        return run("helm", *arguments, "-n", self.name, given=given, timeout_s=timeout_s)

    def get(self, *what: str) -> dict[str, Any]:
        return json.loads(self.kubectl("get", *what, "-o", "json"))

    def items(self, kind: str, labels: str = "") -> list[dict[str, Any]]:
        return self.get(kind, "-l", labels)["items"]

    def apply(self, manifest: dict[str, Any] | list[dict[str, Any]]) -> None:
        manifests = manifest if isinstance(manifest, list) else [manifest]
        self.kubectl(
            "apply",
            "-f",
            "-",
            given=json.dumps({"apiVersion": "v1", "kind": "List", "items": manifests}),
        )


@contextlib.contextmanager
def namespace(name: str, **labels: str) -> Iterator[Namespace]:
    """Create the namespace, after what an earlier run left of it is gone; delete it at the end."""
    tried("kubectl", "delete", "namespace", name, "--ignore-not-found", "--wait", timeout_s=180)
    metadata = {
        "name": name,
        "labels": {
            key.replace("__", "/").replace("_", "-"): value for key, value in labels.items()
        },
    }
    run(
        "kubectl",
        "apply",
        "-f",
        "-",
        given=json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}),
    )
    made = Namespace(name)
    try:
        until(
            lambda: (
                tried("kubectl", "-n", name, "get", "serviceaccount", "default").returncode == 0
            ),
            "the default account",
        )
        yield made
    finally:
        run("kubectl", "delete", "namespace", name, "--wait", timeout_s=180)


def until(look: Callable[[], T], what: str, timeout_s: float = 60) -> T:
    """Wait until it is true; a cluster is asked less often than a server in this process."""
    return waiting.until(look, what, timeout_s, every_s=0.5)
