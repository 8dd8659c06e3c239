"""GPUs that a node only pretends to have: enough for the scheduler."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager

from tests.cluster.tools import run


@contextmanager
def pretended(accelerator: str, label: str, count: int) -> Iterator[str]:
    """A node with `count` of an accelerator that nobody else asks for, under the label `label: here`."""
    node = json.loads(run("kubectl", "get", "nodes", "-o", "json"))["items"][0]["metadata"]["name"]
    path = f"/status/capacity/{accelerator.replace('/', '~1')}"

    def patch(operation: dict[str, str]) -> None:
        run("kubectl", "patch", "node", node, "--subresource=status", "--type=json", "-p", json.dumps([operation]))

    run("kubectl", "label", "node", node, f"{label}=here", "--overwrite")
    patch({"op": "add", "path": path, "value": f"{count}"})
    try:
        yield node
    finally:
        patch({"op": "remove", "path": path})
        run("kubectl", "label", "node", node, f"{label}-")
