"""The kinds of objects that moaa reads or writes, with their names in REST paths and Roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

Object = dict[str, Any]
"""An object as the API's own JSON."""
Objects = list[Object]


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of object: its API group and version, its plural in paths, its name."""

    version: str
    plural: str
    name: str

    @property
    def right(self) -> str:
        """Return the kind in the form of a Role's message: `deployments.apps`."""
        group = self.version.rpartition("/")[0]
        plural, slash, part = self.plural.partition("/")
        return f"{plural}.{group}{slash}{part}" if group else self.plural

    def path(self, namespace: str, name: str = "") -> str:
        """Return the REST path of all objects of this kind, or of one."""
        if not self.version:
            return f"/{self.plural}"
        base = "/apis" if "/" in self.version else "/api"
        path = f"{base}/{self.version}/namespaces/{namespace}/{self.plural}"
        return f"{path}/{name}" if name else path


DEPLOYMENTS: Final = Kind("apps/v1", "deployments", "Deployment")
PODS: Final = Kind("v1", "pods", "Pod")
EVENTS: Final = Kind("v1", "events", "Event")
SLICES: Final = Kind("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
SERVICES: Final = Kind("v1", "services", "Service")
CONFIG_MAPS: Final = Kind("v1", "configmaps", "ConfigMap")
LEASES: Final = Kind("coordination.k8s.io/v1", "leases", "Lease")
JOBS: Final = Kind("batch/v1", "jobs", "Job")
TRAIN_JOBS: Final = Kind("trainer.kubeflow.org/v1alpha1", "trainjobs", "TrainJob")
VERSION: Final = Kind("", "version", "version")
"""GET /version: needs no rights."""
