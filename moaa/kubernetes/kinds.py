"""The kinds of objects that moaa reads or writes, as their REST paths and Roles name them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Kind:
    version: str
    plural: str
    name: str

    @property
    def right(self) -> str:
        """As a Role's message names it: `deployments.apps`."""
        group = self.version.rpartition("/")[0]
        return f"{self.plural}.{group}" if group else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        base = "/apis" if "/" in self.version else "/api"
        return f"{base}/{self.version}/namespaces/{namespace}/{self.plural}" + (
            f"/{name}" if name else ""
        )


DEPLOYMENTS: Final = Kind("apps/v1", "deployments", "Deployment")
PODS: Final = Kind("v1", "pods", "Pod")
EVENTS: Final = Kind("v1", "events", "Event")
SLICES: Final = Kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
SERVICES: Final = Kind("v1", "services", "Service")
JOBS: Final = Kind("batch/v1", "jobs", "Job")
TRAIN_JOBS: Final = Kind("trainer.kubeflow.org/v1alpha1", "trainjobs", "TrainJob")
