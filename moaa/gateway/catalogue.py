"""From a model's name to what answers: a plain model, a promoted one, or a mixture."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from aiohttp import web

from moaa.gateway.access import Caller
from moaa.gateway.backend import Backend
from moaa.gateway.body import Body
from moaa.gateway.mixtures.model import MixtureModel
from moaa.gateway.proxy import pass_on
from moaa.gateway.readiness import wait_until_up
from moaa.gateway.split_model import SplitModel
from moaa.gateway.state import ClientRequest, Gateway
from moaa.gateway.wire import no_model


class Model(Protocol):
    """What answers requests for one name."""

    @property
    def name(self) -> str:
        """The name that clients use."""

    def card(self) -> dict[str, Any]:
        """Return what /v1/models says about it, besides its name."""
        ...

    def calls(self, body: Body) -> int:
        """Return how many calls to engines this request costs: limits count them."""
        ...

    async def respond(self, asked: ClientRequest) -> web.StreamResponse:
        """Answer the request. Raises ApiError only while nothing has been sent."""
        ...


@dataclass(eq=False, slots=True)
class PlainModel:
    """A model whose requests are passed on unchanged."""

    backend: Backend

    @property
    def name(self) -> str:
        """The model's name for clients."""
        return self.backend.name

    def card(self) -> dict[str, Any]:
        """Return what /v1/models says about it, besides its name."""
        revision = self.backend.revision
        return {"state": self.backend.state} | ({"revision": revision} if revision else {})

    def calls(self, body: Body) -> int:
        """Return 1: each request is one call to an engine."""
        return 1

    async def respond(self, asked: ClientRequest) -> web.StreamResponse:
        """Wake the model if needed, and pass the request on. Raises ApiError."""
        await wait_until_up(asked, [self.backend])
        return await pass_on(asked, self.backend)


class Catalogue:
    """The models of one gateway by their names."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}

    def add(self, model: Model) -> None:
        """Let clients use this model."""
        self._models[model.name] = model

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, name: str, caller: Caller) -> Model:
        """Return the model of this name. Raises ApiError 404 if there is none that the caller may
        use.

        `NAME@REVISION` is one revision of a promoted model; the right to use NAME is enough.
        """
        base, _, revision = name.partition("@")
        model = self._models.get(base)
        if model is None or not caller.may_ask(base) or (revision and not _has(model, revision)):
            raise no_model(name)
        return model


def catalogue_of(gateway: Gateway) -> Catalogue:
    """Return the models in a gateway's file: plain ones, promoted ones and mixtures."""
    found, config = Catalogue(), gateway.config
    for name, backend in gateway.backends.items():
        if name not in config.slots:
            found.add(PlainModel(backend))
    for name, promoted in gateway.promoted.items():
        found.add(SplitModel(promoted, config.promoted[name].guard))
    for name, mixture in config.mixtures.items():
        found.add(MixtureModel(name, mixture, gateway))
    return found


def _has(model: Model, revision: str) -> bool:
    """Return whether this model can be asked for a single revision."""
    has = getattr(model, "has_revision", None)
    return bool(has and has(revision))
