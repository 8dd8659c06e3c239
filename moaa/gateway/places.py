"""Where a promoted model is on the cluster: its ConfigMap, the Deployments of its slots, and the
folder of their pointers."""

from __future__ import annotations

import json
from dataclasses import dataclass

from moaa.engines.deployment import addresses
from moaa.errors import MoaaError
from moaa.gateway.discovery import SERVICE
from moaa.gateway.slots import SLOTS, Slots
from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.errors import Forbidden, NotFound
from moaa.kubernetes.kinds import CONFIG_MAPS, DEPLOYMENTS, SERVICES, SLICES, Object
from moaa.store import Store


@dataclass(frozen=True, slots=True)
class PromotedDeployment:
    """A promoted model on the cluster."""

    name: str
    config_map: str
    deployments: dict[str, str]
    """The Deployment of each slot; its Service has the same name."""
    pointers: str
    service: str = ""
    """Only without a gateway: the Service that selects one of the slots."""

    def pointer(self, slot: str) -> str:
        """Return the address of a slot's pointer."""
        return f"{self.pointers.rstrip('/')}/{slot}.json"


def places(cluster: Cluster) -> dict[str, PromotedDeployment]:
    """Return the promoted models of the namespace by name.

    They are found by the Deployments of their slots. An account that may promote one model may read
    that model's ConfigMap, but not list ConfigMaps.
    """
    return _look(cluster)[0]


def _look(cluster: Cluster) -> tuple[dict[str, PromotedDeployment], list[str]]:
    """Return the promoted models by name, and the ConfigMaps that this account may not read."""
    found = cluster.list(DEPLOYMENTS, f"{names.PART_OF}={names.OURS},{names.MODEL}")
    there = {each["metadata"]["name"] for each in found}
    places: dict[str, PromotedDeployment] = {}
    unread: list[str] = []
    for name in sorted(there):
        config_map = name.removesuffix("-a")
        if config_map == name or f"{config_map}-b" not in there:
            continue
        try:
            about = cluster.get(CONFIG_MAPS, config_map)
        except NotFound:
            continue
        except Forbidden:
            unread.append(config_map)
            continue
        if names.PROMOTED in (about["metadata"].get("labels") or {}):
            place = _place(about)
            places[place.name] = place
    return places, unread


def place_of(cluster: Cluster, name: str) -> PromotedDeployment:
    """Return the promoted model of this name. Raises MoaaError if there is none, Forbidden if there
    may be one that this account cannot read."""
    found, unread = _look(cluster)
    if name in found:
        return found[name]
    there = ", ".join(sorted(found)) or "none"
    said = f"there is no promoted model '{name}' in namespace '{cluster.namespace}'"
    if unread:
        raise Forbidden(
            f"{said} that this account may read (there: {there}; not read: ConfigMap "
            f"{', '.join(unread)}). `promotedBy` in the values of moaa-serving names the accounts "
            "that may promote."
        )
    raise MoaaError(
        f"{said} (there: {there}). Name it under `promoted` in the values of moaa-serving."
    )


def slots_of(cluster: Cluster, place: PromotedDeployment) -> Slots:
    """Return the state of a promoted model."""
    return Slots.of(cluster.get(CONFIG_MAPS, place.config_map).get("data") or {})


def switch(cluster: Cluster, place: PromotedDeployment, slot: str) -> None:
    """Let the Service of this name select this slot. With a gateway there is no such Service."""
    if not place.service:
        return
    metadata = cluster.get(DEPLOYMENTS, place.deployments[slot])["metadata"]
    selector = {names.MODEL: metadata["labels"][names.MODEL]}
    cluster.patch(SERVICES, place.service, {"spec": {"selector": selector}})


def up(cluster: Cluster, service: str) -> int:
    """Return how many pods of a slot are ready."""
    return len(pods_of(cluster, service))


def pods_of(cluster: Cluster, service: str) -> list[str]:
    """Return the addresses of a slot's pods that are ready."""
    return list(addresses(cluster.list(SLICES, f"{SERVICE}={service}")))


def check_version(store: Store, source: str) -> None:
    """Check that there is a model at this address. Raises MoaaError if not."""
    found = {uri.removeprefix(f"{source}/") for uri, _ in store.list(source)}
    weights = any(name.endswith(".safetensors") for name in found)
    if "config.json" not in {name.rpartition("/")[2] for name in found} or not weights:
        raise MoaaError(
            f"{source} is not a model: config.json or *.safetensors is missing there. Give the "
            "address of an sft or dpo result, or of any folder with a model."
        )


def _place(found: Object) -> PromotedDeployment:
    metadata = found["metadata"]
    annotations = metadata.get("annotations") or {}
    name = metadata["labels"][names.PROMOTED]
    try:
        deployments = {slot: json.loads(annotations[names.SLOTS])[slot] for slot in SLOTS}
        pointers, service = annotations[names.POINTERS], annotations.get(names.SERVICE, "")
        return PromotedDeployment(name, metadata["name"], deployments, pointers, service)
    except (KeyError, ValueError, TypeError):
        raise MoaaError(
            f"ConfigMap {metadata['name']} is labelled as the promoted model '{name}', and its "
            f"annotations {names.SLOTS} and {names.POINTERS} do not name its slots and pointers; "
            "moaa-serving writes them."
        ) from None
