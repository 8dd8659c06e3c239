"""A hub of ours: it says which commit a name stands for, gives files, and answers 404 or 503."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler

from tests.support.http_server import listening


class Hub:
    """`commits`: {"datasets/owner/name": commit}; an integer is the status of the answer."""

    def __init__(self) -> None:
        self.commits: dict[str, str | int] = {}
        self.files: dict[str, bytes | int] = {}
        """{"datasets/owner/name/resolve/commit/path": content, or the status of the answer}"""
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub, as long as the context is open."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.give_file()

        def give_file(self) -> None:
            hub.asked.append(self.path)
            found = hub.files.get(self.path.strip("/"), 404)
            body = b"" if isinstance(found, int) else found
            self.send_response(found if isinstance(found, int) else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
            self.send_header("X-Repo-Commit", self.path.partition("/resolve/")[2][:40])
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def do_GET(self) -> None:
            if "/resolve/" in self.path:
                self.give_file()
                return
            name = self.path.removeprefix("/api/").partition("?")[0].partition("/revision/")[0]
            hub.asked.append(self.path)
            found = hub.commits.get(name, 404)
            status = found if isinstance(found, int) else 200
            body = json.dumps({"id": name.partition("/")[2], "sha": found} if status == 200 else {})
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with listening(Handler) as hub.url:
        yield hub
