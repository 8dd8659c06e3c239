"""A small server of ours that speaks S3 badly: each request is answered by the next step of its
script."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler

from moaa.store import Store
from tests.support.http_server import listening

KEYS = {"AWS_ACCESS_KEY_ID": "key-id", "AWS_SECRET_ACCESS_KEY": "very-secret"}
Script = Callable[["Handler", bytes], None]


@dataclass
class BadS3:
    """Answers each request by the next step of its script."""

    script: list[Script] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    """Of each request, with names in lower case."""
    url: str = ""

    def store(self, **more: str) -> Store:
        environ = {**KEYS, "AWS_ENDPOINT_URL_S3": self.url}
        return Store("s3://bucket/root", environ=environ, **more)  # type: ignore[arg-type]


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    bad: BadS3

    def answer(
        self, status: int, body: bytes = b"", length: int | None = None, **headers: str
    ) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        self.wfile.write(body)

    def _handle(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.bad.requests.append(self.command)
        self.bad.headers.append({name.lower(): value for name, value in self.headers.items()})
        self.bad.script.pop(0)(self, body)

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _handle

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve() -> Iterator[BadS3]:
    """A server with an empty script, as long as the context is open."""
    bad = BadS3()
    with listening(type("Handler", (Handler,), {"bad": bad})) as bad.url:
        yield bad


def ok(body: bytes = b"") -> Script:
    return lambda handler, _: handler.answer(200, body, ETag='"e"')


def error(status: int, code: str) -> Script:
    body = f"<Error><Code>{code}</Code><Message>said {code}</Message></Error>".encode()
    return lambda handler, _: handler.answer(status, body)


def hangs_up(handler: Handler, _: bytes) -> None:
    handler.close_connection = True


def breaks_off(handler: Handler, _: bytes) -> None:
    handler.answer(200, b"half", length=8, ETag='"e"')
    handler.close_connection = True
