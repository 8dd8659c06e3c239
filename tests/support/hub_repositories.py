"""A hub of ours that takes commits: repositories with files, large files, tags."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.http_server import listening

LARGE = (".safetensors", ".parquet")


@dataclass
class Repository:
    """`files`: those of main. `tags`: the files at each tag."""

    private: bool
    files: dict[str, bytes] = field(default_factory=dict)
    tags: dict[str, dict[str, bytes]] = field(default_factory=dict)
    commits: int = 0

    @property
    def commit(self) -> str:
        return f"{self.commits:040x}"


class HubRepositories:
    """`refuse`: the status of an answer by the last word of its address: {"create": 403}."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        """By "models/owner/name" and "datasets/owner/name"."""
        self.large: dict[str, bytes] = {}
        self.refuse: dict[str, int] = {}
        self.tokens: set[str | None] = set()
        self.uploads = 0
        self.url = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        steps = path.strip("/").split("/")
        for word, status in self.refuse.items():
            if word in steps:
                return status, {"error": f"told to refuse {word}"}
        match (method, *steps):
            case ("POST", "api", "repos", "create"):
                given = json.loads(body)
                kind = {"model": "models", "dataset": "datasets"}[given["type"]]
                name = f"{given['organization']}/{given['name']}"
                url = f"{self.url}/{'' if kind == 'models' else 'datasets/'}{name}"
                if f"{kind}/{name}" in self.repositories:
                    return 409, {"error": "exists", "url": url}
                private = given.get("visibility") == "private"
                self.repositories[f"{kind}/{name}"] = Repository(private)
                return 200, {"url": url, "name": name}
            case ("POST", "api", "validate-yaml"):
                return 200, {"errors": [], "warnings": []}
            case ("PUT", "large", oid):
                assert hashlib.sha256(body).hexdigest() == oid
                self.large[oid] = body
                self.uploads += 1
                return 200, {}
            case ("POST", *_, "objects", "batch"):
                return 200, {"objects": [self._place(each) for each in json.loads(body)["objects"]]}
            case (_, "api", kind, owner, name, *rest):
                found = self.repositories.get(f"{kind}/{owner}/{name}")
                if found is None:
                    return 404, {"error": "no such repository"}
                return self._of_repository(found, method, rest, body)
        return 404, {"error": f"not known: {method} {path}"}

    def _place(self, large: dict[str, Any]) -> dict[str, Any]:
        if large["oid"] in self.large:
            return large
        return {**large, "actions": {"upload": {"href": f"{self.url}/large/{large['oid']}"}}}

    def _of_repository(
        self, found: Repository, method: str, rest: list[str], body: bytes
    ) -> tuple[int, Any]:
        match (method, *rest):
            case ("GET", "refs"):
                tags = [
                    {"name": tag, "ref": f"refs/tags/{tag}", "targetCommit": found.commit}
                    for tag in found.tags
                ]
                return 200, {"branches": [], "converts": [], "tags": tags}
            case ("GET", "tree", *_):
                held = found.files.items()
                return 200, [
                    {"type": "file", "path": name, "size": len(data), "oid": "0"}
                    for name, data in held
                ]
            case ("GET", *_):
                files = [{"rfilename": name} for name in found.files]
                return 200, {"id": "owner/name", "sha": found.commit, "siblings": files}
            case ("POST", "preupload", "main"):
                asked = json.loads(body)["files"]
                return 200, {"files": [self._mode(found, each["path"]) for each in asked]}
            case ("POST", "commit", "main"):
                self._commit(found, body)
                url = f"{self.url}/owner/name/commit/{found.commit}"
                return 200, {"success": True, "commitOid": found.commit, "commitUrl": url}
            case ("POST", "tag", revision):
                assert revision == found.commit
                found.tags[json.loads(body)["tag"]] = dict(found.files)
                return 200, {}
        return 404, {"error": f"not known: {method} {rest}"}

    def _mode(self, found: Repository, path: str) -> dict[str, Any]:
        large = path.endswith(LARGE)
        held = found.files.get(path)
        oid = None
        if held is not None:
            blob = b"blob %d\0" % len(held) + held
            oid = hashlib.sha256(held) if large else hashlib.sha1(blob)
        return {
            "path": path,
            "uploadMode": "lfs" if large else "regular",
            "shouldIgnore": False,
            "oid": oid and oid.hexdigest(),
        }

    def _commit(self, found: Repository, body: bytes) -> None:
        found.commits += 1
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            match operation["key"]:
                case "file":
                    found.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    found.files[value["path"]] = self.large[value["oid"]]
                case "deletedFile":
                    del found.files[value["path"]]


@contextmanager
def serve() -> Iterator[HubRepositories]:
    """A hub, as long as the context is open."""
    hub = HubRepositories()

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            if not self.path.startswith("/large/"):
                hub.tokens.add(self.headers.get("Authorization"))
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            status, found = hub.answer(self.command, self.path.partition("?")[0], body)
            data = json.dumps(found).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = _answer

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as hub.url:
        yield hub
