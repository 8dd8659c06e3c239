"""GPUs that a node only pretends to have: enough for the scheduler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.tools import run


@contextmanager
def pretended(accelerator: str, label: str, count: int) -> Iterator[str]:
    """A node with `count` of an accelerator that nobody else asks for, under the label `label:
    here`."""
    node = json.loads(run("kubectl", "get", "nodes", "-o", "json"))["items"][0]["metadata"]["name"]
    paths = [
        f"/status/{which}/{accelerator.replace('/', '~1')}" for which in ("capacity", "allocatable")
    ]

    def patch(operation: dict[str, str]) -> None:
        operations = json.dumps([{**operation, "path": path} for path in paths])
        run(
            "kubectl",
            "patch",
            "node",
            node,
            "--subresource=status",
            "--type=json",
            "-p",
            operations,
        )

    run("kubectl", "label", "node", node, f"{label}=here", "--overwrite")
    patch({"op": "add", "value": f"{count}"})
    try:
        yield node
    finally:
        patch({"op": "remove"})
        run("kubectl", "label", "node", node, f"{label}-")
