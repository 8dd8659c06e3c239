"""A hub of ours: it says which commit a name stands for, and answers 404, 503 or nothing."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Hub:
    """`commits`: {"datasets/owner/name": commit}; an integer is the status of the answer."""

    def __init__(self) -> None:
        self.commits: dict[str, str | int] = {}
        self.asked: list[str] = []
        self.url = ""


@contextmanager
def serve() -> Iterator[Hub]:
    """A hub, as long as the context is open."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
