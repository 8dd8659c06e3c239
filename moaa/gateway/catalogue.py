"""A model's name -> who answers: a plain model, the promoted one, or a mixture."""

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
from moaa.gateway.state import Asked, Gateway
from moaa.gateway.wire import no_model


class Model(Protocol):
    """Whatever answers to one name."""

    @property
    def name(self) -> str: ...

    def card(self) -> dict[str, Any]:
        """What /v1/models says of it, besides its name."""
        ...

    def calls(self, body: Body) -> int:
        """How many calls to engines this request costs: limits count them."""
        ...

    async def respond(self, asked: Asked) -> web.StreamResponse:
        """Answer. Raises ApiError while nothing has been sent."""
        ...


@dataclass(eq=False, slots=True)
class PlainModel:
    """A model whose requests are passed on as they are."""

    backend: Backend

    @property
    def name(self) -> str:
        return self.backend.name

    def card(self) -> dict[str, Any]:
        revision = self.backend.revision
        return {"state": self.backend.state} | ({"revision": revision} if revision else {})

    def calls(self, body: Body) -> int:
        return 1

    async def respond(self, asked: Asked) -> web.StreamResponse:
        await wait_until_up(asked, [self.backend])
        return await pass_on(asked, self.backend)


class Catalogue:
    """The models of one gateway by their names."""

    def __init__(self) -> None:
        self._models: dict[str, Model] = {}

    def add(self, model: Model) -> None:
        """Let clients ask for this model."""
        self._models[model.name] = model

    def __iter__(self) -> Iterator[Model]:
        return iter(self._models.values())

    def find(self, name: str, caller: Caller) -> Model:
        """The model of this name. Raises ApiError 404 if there is none that the caller may ask.

        `NAME@REVISION` is a revision of a promoted model; the right to ask NAME is enough.
        """
        base, _, revision = name.partition("@")
        model = self._models.get(base)
        if model is None or not caller.may_ask(base) or (revision and not _has(model, revision)):
            raise no_model(name)
        return model


def catalogue_of(gateway: Gateway) -> Catalogue:
    """Return the models that a gateway's file names: plain ones, promoted ones, mixtures."""
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
    """Whether this model can be asked for one revision alone."""
    has = getattr(model, "has_revision", None)
    return bool(has and has(revision))
