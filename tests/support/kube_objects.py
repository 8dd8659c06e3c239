"""Objects and refusals as a cluster has them."""

from __future__ import annotations

from typing import Any

FORBIDDEN = (
    'deployments.apps is forbidden: User "system:serviceaccount:team:nobody" cannot {verb} '
    'resource "{resource}" '
    'in API group "apps" in the namespace "team"'
)
"""What the API server says if a right is missing."""


def pod(name: str, **labels: str) -> dict[str, Any]:
    """A pod of which nothing matters but its name and labels."""
    return {"metadata": {"name": name, "labels": labels}, "spec": {}}
