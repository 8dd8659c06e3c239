"""The gateway's HTTP connections: a request that aiohttp itself refuses also gets an OpenAI
error."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from aiohttp.web_request import BaseRequest

from moaa.gateway.wire import ApiError

KEEP_ALIVE_S: Final = 75.0
"""How long a client's idle connection stays open."""


class _Connection(web.RequestHandler):
    __slots__ = ()

    def handle_error(
        self,
        request: BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer a request that is not valid HTTP (a header is too long),
        and an error nobody caught."""
        if status >= 500 or request.writer.output_size > 0:
            return super().handle_error(request, status, exc, message)
        what = (message or "").partition("\n")[0].rstrip(":")
        error = ApiError(status, f"The request is not valid HTTP: {what}.", "invalid_http")
        headers = {"Content-Type": "application/json", "Server": "moaa", **error.all_headers()}
        response = web.Response(body=error.body(), status=status, headers=headers)
        response.force_close()
        return response


class _Server(web.Server):
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application on ports."""

    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        # aiohttp has no other place to set the class that serves a connection.
        server.__class__ = _Server
        return server


def runner(app: web.Application) -> Runner:
    """Return the runner of the gateway's application. It keeps no access log:
    each line costs time."""
    return Runner(app, access_log=None, shutdown_timeout=1.0, keepalive_timeout=KEEP_ALIVE_S)
