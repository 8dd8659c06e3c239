"""The kinds of objects that only preflight reads."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from moaa.kubernetes.kinds import Kind


@dataclass(frozen=True, slots=True)
class ClusterWide(Kind):
    """A kind whose objects are in no namespace."""

    def path(self, namespace: str, name: str = "") -> str:
        """Return the REST path of all objects of this kind, or of one."""
        base = "/apis" if "/" in self.version else "/api"
        return f"{base}/{self.version}/{self.plural}" + (f"/{name}" if name else "")


NODES: Final = ClusterWide("v1", "nodes", "Node")
SECRETS: Final = Kind("v1", "secrets", "Secret")
ACCOUNTS: Final = Kind("v1", "serviceaccounts", "ServiceAccount")
QUOTAS: Final = Kind("v1", "resourcequotas", "ResourceQuota")
LIMIT_RANGES: Final = Kind("v1", "limitranges", "LimitRange")
RUNTIMES: Final = Kind("trainer.kubeflow.org/v1alpha1", "trainingruntimes", "TrainingRuntime")
MY_REVIEWS: Final = ClusterWide(
    "authorization.k8s.io/v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview"
)
REVIEWS: Final = Kind(
    "authorization.k8s.io/v1", "localsubjectaccessreviews", "LocalSubjectAccessReview"
)
