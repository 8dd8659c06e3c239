"""Published models in a Kubeflow Model Registry, by its REST protocol.

S3 is the truth. `mirror` makes the registry equal to it: missing versions are registered
completely, and the one in production is marked. A second call changes nothing.
"""

from __future__ import annotations

import math
import urllib.error
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from moaa.artifacts import Artifact
from moaa.progress.messages import log
from moaa.recipe.publish import ModelRegistry
from moaa.registry import production
from moaa.registry.lineage import LINEAGE, lineage_of
from moaa.registry.versions import versions
from moaa.rest import Server, key_of, without_key
from moaa.store import Store

PROTOCOLS: Final = ("v1", "v1alpha3")
"""The versions of the protocol: servers of 2026 speak one of them."""
FACT: Final = "registry"
"""The field of a version's manifest with the registry that shows it."""
PAGE: Final = 100
PRODUCTION: Final = "production"
"""The property of a version that shows whether it is in production."""

Properties = dict[str, dict[str, Any]]


def put_into_production(
    store: Store, name: str, entry: production.ProductionEntry
) -> tuple[production.Production, str]:
    """Move the production pointer. If the version was published to a registry, update that too.

    Returns the new pointer, and the result of `mirror`. Raises like `production.move`.
    """
    moved = production.move(store, name, entry)
    given = Artifact.open(store, entry.uri).manifest.facts.get(FACT)
    return moved, mirror(store, name, ModelRegistry.model_validate(given)) if given else ""


def mirror(store: Store, name: str, given: ModelRegistry) -> str:
    """Make the registry show the same as S3 about the published model `name`: its versions, and
    which is in production.

    Returns in a sentence why it could not; empty if it worked. It raises nothing that a registry
    can cause: versions do not depend on it.
    """
    try:
        server = Server(given.url, key_of(given.key_env))
        _mirror(_Registry.of(server), store, name, given)
    except (OSError, ValueError, LookupError) as error:
        why = without_key(_shown(error), given.key_env)
        log.warning(
            f"the model registry {given.url} does not show the versions of {name}: {why}. "
            "The versions on S3 are not affected; the next publication or promotion repeats it."
        )
        return why
    return ""


def _mirror(registry: _Registry, store: Store, name: str, given: ModelRegistry) -> None:
    current = production.read(store, name).current
    model = registry.made("registered_model", {"name": name}, {"name": name})
    for version in versions(store, name):
        made = version.manifest.fingerprint
        serves = current is not None and current.uri == version.uri
        lineage = lineage_of(version)
        found = registry.made(
            "model_version",
            {"name": made, "parentResourceId": model["id"]},
            {
                "name": made,
                "registeredModelId": model["id"],
                "author": f"moaa {lineage['code']['moaa']}",
                "description": lineage["decision"]["why"],
                "customProperties": _properties(version, lineage, serves),
            },
        )
        registry.fill(found["id"], version, lineage, given.storage_key)
        registry.mark(found, serves)


@dataclass(frozen=True, slots=True)
class _Registry:
    """The calls to a server that are needed, below the version of its protocol."""

    server: Server

    @classmethod
    def of(cls, server: Server) -> _Registry:
        """Find out which version of the protocol the server speaks."""
        for protocol in PROTOCOLS:
            below = Server(f"{server.url.rstrip('/')}/api/model_registry/{protocol}", server.key)
            try:
                below.ask("registered_models", query={"pageSize": "1"})
            except urllib.error.HTTPError as error:
                if error.code != 404:
                    raise
                error.close()
            else:
                return cls(below)
        raise ValueError(f"{server.url} speaks neither {' nor '.join(PROTOCOLS)} of its protocol")

    def made(self, kind: str, known_by: Mapping[str, str], body: Mapping[str, Any]) -> Any:
        """Return the resource; create it if needed. Another process may create it at the same
        time."""
        try:
            return self.server.ask(kind, query=known_by)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            error.close()
        try:
            return self.server.ask(f"{kind}s", dict(body))
        except urllib.error.HTTPError as error:
            if error.code != 409:
                raise
            error.close()
        return self.server.ask(kind, query=known_by)

    def fill(
        self, id: str, version: Artifact, lineage: Mapping[str, Any], storage_key: str | None
    ) -> None:
        """Add what the version lacks: scores, the card, and the model last, because a server that
        loads the version uses its newest artifact.

        Raises ValueError if it has a model at another address.
        """
        artifacts = f"model_versions/{id}/artifacts"
        there = self._all(artifacts)
        model = _model(version, storage_key)
        for each in there:
            if each["artifactType"] == "model-artifact":
                if each.get("uri") != model["uri"]:
                    raise ValueError(
                        f"its version {version.manifest.fingerprint} is at {each.get('uri')}, not "
                        f"at {model['uri']}. Archive that one, or publish under another name"
                    )
                return
        names = {each.get("name") for each in there}
        for body in (*_metrics(version, lineage), _card(version), model):
            if body["name"] not in names:
                self._add(artifacts, body)

    def mark(self, version: Mapping[str, Any], serves: bool) -> None:
        """Set whether the version is in production. A PATCH replaces all properties, so the others
        are sent again."""
        known = version.get("customProperties", {})
        if known.get(PRODUCTION) != (said := _property(serves)):
            self.server.ask(
                f"model_versions/{version['id']}",
                {"customProperties": {**known, PRODUCTION: said}},
                method="PATCH",
            )

    def _add(self, path: str, body: dict[str, Any]) -> None:
        try:
            self.server.ask(path, body)
        except urllib.error.HTTPError as error:
            if error.code != 409:  # another process was faster
                raise
            error.close()

    def _all(self, path: str) -> list[Any]:
        found: list[Any] = []
        token: dict[str, str] = {}
        while True:
            page = self.server.ask(path, query={"pageSize": str(PAGE), **token})
            found += page["items"]
            if not page.get("nextPageToken"):
                return found
            token = {"nextPageToken": page["nextPageToken"]}


def _model(version: Artifact, storage_key: str | None) -> dict[str, Any]:
    manifest = version.manifest
    found = {
        "artifactType": "model-artifact",
        "name": f"{manifest.fingerprint} model",
        "uri": version.uri,
        "modelFormatName": "safetensors",
    }
    if storage_key:
        path = urlsplit(version.uri).path.strip("/")
        found |= {"storageKey": storage_key, "storagePath": path}
    return found


def _card(version: Artifact) -> dict[str, Any]:
    return {
        "artifactType": "doc-artifact",
        "name": f"{version.manifest.fingerprint} README.md",
        "uri": f"{version.uri}/README.md",
    }


def _metrics(version: Artifact, lineage: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the main number of each benchmark and measured model, with its interval."""
    for benchmark, each in lineage["scores"].items():
        for score in each["main"]:
            against = f" against {score['against']}" if score["against"] else ""
            of = f"{benchmark}: {score['metric']} of {score['entrant']}{against}"
            interval = {"low": score["low"], "high": score["high"], "n": score["n"]}
            yield {
                "artifactType": "metric",
                "name": f"{version.manifest.fingerprint} {of}",
                "value": score["value"],
                "customProperties": _of({k: v for k, v in interval.items() if v is not None}),
            }


def _properties(version: Artifact, lineage: Mapping[str, Any], serves: bool) -> Properties:
    """Return what the gate decided and by which numbers,
    where the model came from, its licences."""
    decision = lineage["decision"]
    found: dict[str, Any] = {
        PRODUCTION: serves,
        "gate": decision["verdict"],
        "candidate": decision["candidate"],
        "against": decision["against"],
        "recipe": lineage["recipe"]["name"],
        "recipe_sha256": lineage["recipe"]["digest"],
        "lineage": f"{version.uri}/{LINEAGE}",
        "target": next(
            model["published_name"] for model in lineage["models"] if "target" in model["roles"]
        ),
        "teachers": ", ".join(
            f"{model['published_name']} ({model['licence'] or 'licence not known'})"
            for model in lineage["models"]
            if model["roles"] != ["target"]
        ),
    }
    for rule in decision["findings"]:
        found[f"gate: {rule['rule']}"] = rule["outcome"]
        if estimate := rule["estimate"]:
            numbers = {number: estimate[number] for number in ("value", "low", "high")}
            found |= {
                f"gate: {rule['rule']}: {number}": value
                for number, value in numbers.items()
                if math.isfinite(value)
            }
    return _of({name: value for name, value in found.items() if value not in (None, "")})


def _of(values: Mapping[str, Any]) -> Properties:
    return {name: _property(value) for name, value in values.items()}


def _property(value: bool | float | str) -> dict[str, Any]:
    """Return a value in the form of the protocol: whole numbers are text there."""
    if isinstance(value, bool):
        return {"metadataType": "MetadataBoolValue", "bool_value": value}
    if isinstance(value, int):
        return {"metadataType": "MetadataIntValue", "int_value": str(value)}
    if isinstance(value, float):
        return {"metadataType": "MetadataDoubleValue", "double_value": value}
    return {"metadataType": "MetadataStringValue", "string_value": value}


def _shown(error: Exception) -> str:
    """Return the error with the server's message."""
    if isinstance(error, urllib.error.HTTPError):
        with error:
            said = error.read(500).decode(errors="replace").strip()
        return f"HTTP {error.code}: {said or error.reason}"
    return f"{type(error).__name__}: {error}"
