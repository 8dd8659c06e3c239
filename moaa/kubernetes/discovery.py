"""What a cluster offers beyond Kubernetes itself."""

from __future__ import annotations

from moaa.kubernetes.api import Cluster
from moaa.kubernetes.kinds import Kind
from moaa.kubernetes.refusal import Forbidden, NotFound


def knows(cluster: Cluster, kind: Kind) -> bool:
    """Whether the cluster has this kind of object (is Kubeflow Trainer installed?), whatever this
    account may do with it."""
    try:
        cluster.list(kind, "moaa.dev/none")  # of no interest but for the refusal
    except NotFound:
        return False
    except Forbidden:
        return True
    return True
