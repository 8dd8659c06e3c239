"""The routes of a gateway; how each request is admitted and counted."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiohttp import web

from moaa.gateway.access import Caller
from moaa.gateway.body import parse_body
from moaa.gateway.catalogue import Catalogue, Model, catalogue_of
from moaa.gateway.feedback.routes import rate
from moaa.gateway.page import add_page
from moaa.gateway.state import ClientRequest, Gateway, request_id
from moaa.gateway.wire import ApiError, invalid
from moaa.progress.messages import log

GATEWAY: Final = web.AppKey("gateway", Gateway)
CATALOGUE: Final = web.AppKey("catalogue", Catalogue)
PATHS: Final = ("/chat/completions", "/completions", "/embeddings", "/responses")
"""The endpoints below `/v1` that ask a model."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def build(gateway: Gateway) -> web.Application:
    """Return the application that serves this gateway."""
    app = web.Application(
        # When a client leaves, its request is cancelled, and with it the request to the engine.
        handler_args={"handler_cancellation": True},
    )
    app[GATEWAY], app[CATALOGUE] = gateway, catalogue_of(gateway)
    app.on_response_prepare.append(_name_ourselves)
    for path in PATHS:
        app.router.add_post(f"/v1{path}", _asking(gateway, path))
    app.router.add_post("/v1/feedback", _plainly(gateway, _feedback))
    app.router.add_get("/v1/models", _plainly(gateway, _models))
    app.router.add_get("/v1/models/{name:.+}", _plainly(gateway, _model))
    app.router.add_get("/health", _health)
    if gateway.config.page:
        add_page(app)
    app.router.add_route("*", "/{anything:.*}", _plainly(gateway, _nothing_here))
    return app


async def _name_ourselves(request: web.Request, response: web.StreamResponse) -> None:
    """Set the `Server` header without the names of libraries."""
    response.headers["Server"] = "moaa"


def metrics_app(gateway: Gateway) -> web.Application:
    """Return the application on the port that Prometheus reads."""

    async def text(request: web.Request) -> web.Response:
        for name, backend in gateway.backends.items():
            gateway.metrics.in_flight.set(name, to=backend.in_flight)
            up = [r for r in backend.replicas.values() if not r.endpoint.in_doubt]
            gateway.metrics.ready.set(name, to=len(up))
        gateway.metrics.share.clear()
        for name, promoted in gateway.promoted.items():
            for slot, share in promoted.shares.items():
                revision = promoted.backends[slot].revision or ""
                gateway.metrics.share.set(name, slot, revision, to=share)
        now = time.perf_counter()
        oldest = max((now - each.started for each in gateway.requests), default=0.0)
        gateway.metrics.oldest.set(to=oldest)
        return web.Response(
            body=gateway.metrics.text().encode(),
            headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
        )

    app = web.Application()
    app.router.add_get("/metrics", text)
    return app


def _asking(gateway: Gateway, path: str) -> Handler:
    """Return the handler of an endpoint that asks a model. It has no middleware around it, because
    middleware would cost time for every chunk of every stream."""

    async def handle(request: web.Request) -> web.StreamResponse:
        id, begun = request_id(request), time.perf_counter()
        name = revision = ""
        code = 499  # the client left
        asked: ClientRequest | None = None
        try:
            if gateway.draining:
                raise _draining()
            caller = gateway.access.caller(request.headers.get("Authorization"))
            body = parse_body(await _read(request))
            asked = ClientRequest(gateway, request, id, path, caller, body)
            model = request.app[CATALOGUE].find(body.model, caller)
            name = model.name
            with gateway.in_progress(asked), gateway.access.admitted(caller, model.calls(body)):
                response = await model.respond(asked)
            code = response.status
            revision = response.headers.get("x-moaa-revision", "")
            return response
        except ApiError as error:
            code = error.status
            if asked is not None and asked.response is not None:  # sent while a model woke
                await asked.response.write(asked.last_event(error))
                return asked.response
            return _answer(error, id)
        except (asyncio.CancelledError, ConnectionError):
            gateway.metrics.cancelled.add(name)
            raise
        except Exception:
            code = 500
            log.exception(f"{id}: a bug of the gateway")
            if asked is not None and asked.response is not None:
                raise
            return _answer(ApiError(500, f"The gateway failed. Look for {id} in its log."), id)
        finally:
            seconds = time.perf_counter() - begun
            gateway.metrics.requests.add(name, revision, str(code))
            gateway.metrics.seconds.add(seconds, name)
            level = logging.WARNING if code >= 500 else logging.DEBUG
            log.log(level, "%s: %s of '%s': %s after %.3f s", id, path, name, code, seconds)

    return handle


async def _read(request: web.Request) -> bytes:
    """Return the body. aiohttp's own `read` would keep it in memory while the request lasts, which
    may be minutes for a stream."""
    most = request.app[GATEWAY].config.body_mib
    parts, size = [], 0
    try:
        async for part in request.content.iter_any():
            parts.append(part)
            size += len(part)
            if size > most << 20:
                raise ApiError(413, f"The request is larger than {most} MiB (body_mib).")
    except web.RequestPayloadError as error:  # compressed, and not as its header says
        raise invalid(f"The body cannot be read: {' '.join(str(error).split())}.") from None
    return b"".join(parts)


def _plainly(
    gateway: Gateway, work: Callable[[Gateway, web.Request, Caller], Awaitable[web.Response]]
) -> Handler:
    """Return the handler of an endpoint that asks no model."""

    async def handle(request: web.Request) -> web.StreamResponse:
        id = request_id(request)
        try:
            caller = gateway.access.caller(request.headers.get("Authorization"))
            response = await work(gateway, request, caller)
        except ApiError as error:
            return _answer(error, id)
        response.headers["x-request-id"] = id
        return response

    return handle


async def _models(gateway: Gateway, request: web.Request, caller: Caller) -> web.Response:
    models = request.app[CATALOGUE]
    cards = [_card(model) for model in models if caller.may_ask(model.name)]
    return web.json_response({"object": "list", "data": cards})


async def _model(gateway: Gateway, request: web.Request, caller: Caller) -> web.Response:
    name = request.match_info["name"]
    return web.json_response(_card(request.app[CATALOGUE].find(name, caller)) | {"id": name})


def _card(model: Model) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": 0, "owned_by": "moaa", **model.card()}


async def _nothing_here(gateway: Gateway, request: web.Request, caller: Caller) -> web.Response:
    allowed: set[str] = set()
    for resource in request.app.router.resources():
        found, methods = await resource.resolve(request)
        if found is None:  # this handler's own resource takes every method
            allowed |= methods
    if not allowed:
        raise ApiError(404, f"{request.path} does not exist here.", "not_found")
    takes = sorted(allowed)
    raise ApiError(
        405,
        f"{request.path} takes {' or '.join(takes)}, not {request.method}.",
        headers={"Allow": ", ".join(takes)},
    )


async def _feedback(gateway: Gateway, request: web.Request, caller: Caller) -> web.Response:
    return web.json_response(rate(gateway.feedback, caller, await _read(request)))


async def _health(request: web.Request) -> web.StreamResponse:
    """200 if requests can be answered: the gateway is not stopping, and a model is up or can be
    woken. The body has the state of each model."""
    gateway = request.app[GATEWAY]
    states = {name: backend.state for name, backend in gateway.backends.items()}
    up = not gateway.draining and any(state != "down" for state in states.values())
    status = "draining" if gateway.draining else "ok" if up else "no model is up"
    return web.json_response({"status": status, "models": states}, status=200 if up else 503)


def _draining() -> ApiError:
    return ApiError(
        503, "This gateway is being stopped: try again.", after_s=1, headers={"Connection": "close"}
    )


def _answer(error: ApiError, id: str) -> web.Response:
    headers = {"x-request-id": id, "Content-Type": "application/json", **error.all_headers()}
    return web.Response(body=error.body(), status=error.status, headers=headers)
