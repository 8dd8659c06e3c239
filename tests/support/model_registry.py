"""A Kubeflow Model Registry of ours. It answers as kubeflow/hub bd07139 on MariaDB was seen to
answer: ids are text, names are unique, a PATCH replaces all properties, a metric that is sent again
is replaced, anything else that is there is a 409, unknown fields are a 400."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.support.http_server import listening

Answer = tuple[int, dict[str, Any]]

_NOT_FOUND = {"code": "Not Found", "message": "not found"}
_CONFLICT = {"code": "Conflict", "message": "already exists: conflict"}
_OF_ALL = {"name", "description", "externalId", "customProperties"}
_FIELDS = {
    "registered_models": _OF_ALL | {"owner", "state"},
    "model_versions": _OF_ALL | {"author", "state", "registeredModelId"},
    "artifacts": _OF_ALL
    | {"artifactType", "uri", "state", "value", "modelFormatName", "storageKey", "storagePath"},
}


class ModelRegistry:
    """What it holds, what it was asked, and how it can be told to fail."""

    def __init__(self) -> None:
        self.protocol = "v1alpha3"
        self.models: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.artifacts: list[dict[str, Any]] = []
        self.requests: list[tuple[str, str]] = []
        self.keys: set[str | None] = set()
        self.fail_after: int | None = None
        """After so many more writes it answers 503."""
        self.page = 100
        self.url = ""

    def of(self, version: str) -> list[dict[str, Any]]:
        """The artifacts of a version, oldest first."""
        id = next(each["id"] for each in self.versions if each["name"] == version)
        return [each for each in self.artifacts if each["of"] == id]

    def production(self) -> dict[str, bool]:
        """Whether each version is in production."""
        return {
            each["name"]: each["customProperties"]["production"]["bool_value"]
            for each in self.versions
        }

    @property
    def written(self) -> list[tuple[str, str]]:
        """The requests that could change something."""
        return [each for each in self.requests if each[0] != "GET"]

    def answer(self, method: str, path: str, query: dict[str, str], body: Any) -> Answer:
        self.requests.append((method, path))
        prefix = f"/api/model_registry/{self.protocol}/"
        if not path.startswith(prefix):
            return 404, {"code": "Not Found", "message": "404 page not found"}
        steps = path.removeprefix(prefix).split("/")
        if method != "GET":
            if self.fail_after == 0:
                return 503, {"code": "Unavailable", "message": "the database is away"}
            if self.fail_after is not None:
                self.fail_after -= 1
            if unknown := set(body) - _FIELDS[steps[-1] if len(steps) != 2 else steps[0]]:
                return 400, {"code": "Bad Request", "message": f"unknown field {unknown}"}
        match (method, *steps):
            case ("GET", "registered_models"):
                return 200, self._page(self.models, query)
            case ("GET", "registered_model"):
                return self._found(self.models, query["name"])
            case ("POST", "registered_models"):
                return self._made(self.models, body, {"state": "LIVE"})
            case ("GET", "model_version"):
                same = [
                    v for v in self.versions if v["registeredModelId"] == query["parentResourceId"]
                ]
                return self._found(same, query["name"])
            case ("POST", "model_versions"):
                same = [
                    v for v in self.versions if v["registeredModelId"] == body["registeredModelId"]
                ]
                return self._made(self.versions, body, {"state": "LIVE"}, same)
            case ("PATCH", "model_versions", id):
                found = next(each for each in self.versions if each["id"] == id)
                found |= body
                return 200, found
            case ("GET", "model_versions", id, "artifacts"):
                return 200, self._page([a for a in self.artifacts if a["of"] == id], query)
            case ("POST", "model_versions", id, "artifacts"):
                kind = body["artifactType"]
                same = [a for a in self.artifacts if a["of"] == id and a["artifactType"] == kind]
                there = next((each for each in same if each["name"] == body["name"]), None)
                if kind == "metric" and there:
                    there |= body
                    return 200, there
                status, made = self._made(self.artifacts, body, {"of": id}, same)
                return 200 if kind == "metric" else status, made
        return 405, {"code": "Method Not Allowed", "message": "405"}

    def _found(self, among: list[dict[str, Any]], name: str) -> Answer:
        found = next((each for each in among if each["name"] == name), None)
        return (200, found) if found else (404, _NOT_FOUND)

    def _made(
        self,
        into: list[dict[str, Any]],
        body: dict[str, Any],
        more: dict[str, str],
        same: list[dict[str, Any]] | None = None,
    ) -> Answer:
        if any(each["name"] == body["name"] for each in (into if same is None else same)):
            return 409, _CONFLICT
        id = str(len(self.models) + len(self.versions) + len(self.artifacts) + 1)
        into.append({"customProperties": {}, **body, **more, "id": id})
        return 201, into[-1]

    def _page(self, found: list[dict[str, Any]], query: dict[str, str]) -> dict[str, Any]:
        start = int(query.get("nextPageToken") or 0)
        end = start + min(self.page, int(query.get("pageSize", self.page)))
        token = str(end) if end < len(found) else ""
        return {"items": found[start:end], "nextPageToken": token, "size": len(found[start:end])}


@contextmanager
def serve() -> Iterator[ModelRegistry]:
    """A registry, as long as the context is open."""
    registry = ModelRegistry()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            registry.keys.add(self.headers.get("Authorization"))
            parts = urlsplit(self.path)
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else {}
            query = {name: values[0] for name, values in parse_qs(parts.query).items()}
            status, found = registry.answer(self.command, parts.path, query, body)
            data = json.dumps({k: v for k, v in found.items() if k != "of"}).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PATCH = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as registry.url:
        yield registry
