"""The page at `/`: a question, its proposals side by side as they come, and the answer.

It is plain HTML and JavaScript. It asks /v1 as any client does, with the key that the user types.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Final

from aiohttp import web

FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-cache",
}
"""Only the gateway's own script runs, and it can reach only this gateway."""


def add_page(app: web.Application) -> None:
    """Serve the page. It needs no key: it has no secrets."""
    for path, (name, kind) in FILES.items():
        body = resources.files(__name__).joinpath(name).read_bytes()
        app.router.add_get(path, _file(body, kind))


def _file(body: bytes, kind: str) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(request: web.Request) -> web.Response:
        return web.Response(body=body, headers=HEADERS, content_type=kind, charset="utf-8")

    return handle
