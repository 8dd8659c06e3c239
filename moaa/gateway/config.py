"""The file of a gateway: which models it serves, who may use them, and how much.

port: 8080
anonymous: true                     # on a laptop; else `keys`
models:
  smol:
    endpoints: [http://127.0.0.1:8000/v1, http://127.0.0.1:8001/v1]
  big:
    endpoints: [https://big.example/v1]
    served_name: Qwen/Qwen2-72B-Instruct
    key_env: BIG_API_KEY
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, model_validator

from moaa.errors import RecipeError
from moaa.gateway.cluster_config import ClusterPart, PromotedModel, slot_problems
from moaa.gateway.feedback.settings import FeedbackSettings
from moaa.gateway.keys import Key, Limits, Rights, same_keys
from moaa.gateway.mixtures.settings import OnlineMixture, problems
from moaa.recipe import secrets, urls
from moaa.recipe.document import Part, Problems
from moaa.recipe.files import document_of
from moaa.recipe.forms import form
from moaa.recipe.load import inline
from moaa.recipe.mistakes import checked
from moaa.recipe.read import read
from moaa.recipe.serving import Price

ModelName = Annotated[
    str, form(r"[^\s@\x00-\x1f]{1,200}", "1 to 200 characters without spaces and @")
]
"""A model's name as clients write it. `@` is reserved for revisions."""


class PlainModel(Part):
    """A model behind OpenAI-compatible servers. Requests are passed on unchanged."""

    endpoints: tuple[str, ...] = ()
    """The base addresses of its servers, usually `…/v1`. The next request goes to the one with the
    fewest in flight."""
    service: str | None = Field(None, min_length=1)
    """The Service of its pods on the cluster, instead of `endpoints`. It is watched, and requests
    go to the pods that are ready. A Deployment of the same name that is asleep can be woken."""
    served_name: str | None = None
    """The model's name at its servers. Default: its name here."""
    key_env: str | None = None
    """Name of the environment variable with the API key of its servers; never the key itself."""
    allow_http: bool = False
    """Send the key over plain http too. By default a key needs https, an address of this machine,
    or a service of the cluster (`….svc`)."""
    in_flight: int | None = Field(None, ge=1)
    """The most requests in flight at one server; one more gets 429. Default:
    no limit, the servers queue."""
    count_tokens: bool = False
    """Ask the server for the number of tokens of every stream (`stream_options`), and remove it
    again if the client did not ask. It is always on with a price or a limit of tokens. When it is
    off, requests are passed on unchanged, and a stream is counted only if it reports its tokens."""
    price: Price | None = None
    """For `moaa_gateway_dollars_total`."""
    system_role: bool = True
    """false if its chat template refuses system messages (Gemma 2): a mixture then puts their text
    before the first user message."""
    takes_turns_in: str | None = None
    """The name of a group of models that share their GPUs: one of them is up at a time. A mixture
    cannot have two models of one group."""
    revision: str | None = None
    """Shown to clients. Default: none."""

    @model_validator(mode="after")
    def _addresses_are_right(self) -> Self:
        found: list[tuple[tuple[str | int, ...], str]] = []
        for index, url in enumerate(self.endpoints):
            if problem := urls.problem_of(url):
                found.append((("endpoints", index), f"the address {problem}."))
            elif self.key_env and not self.allow_http and not urls.may_carry_key(url):
                found.append(
                    (
                        ("endpoints", index),
                        f"{urls.origin(url)} would get the key in {self.key_env} over plain http, "
                        "where others can read it. Use https, or set allow_http: true.",
                    )
                )
        if self.service and self.endpoints:
            found.append((("service",), "Give either `endpoints` or `service`, not both."))
        if not self.service and not self.endpoints:
            found.append((("endpoints",), "Give either `endpoints` or `service`."))
        if len(set(self.endpoints)) < len(self.endpoints):
            found.append((("endpoints",), "the same address is listed twice. Remove one."))
        if found:
            raise Problems(found)
        return self


class Times(Part):
    """How long the gateway waits, in seconds."""

    connect_s: float = Field(2, gt=0)
    """The longest wait for a connection to a model's server."""
    idle_s: float = Field(600, gt=0)
    """The longest wait for the next byte of an answer, and for a client that does not read."""
    drain_s: float = Field(120, ge=0)
    """How long answers in progress may go on after SIGTERM."""


class GatewayConfig(Part):
    """What a gateway serves, to whom, and how much."""

    host: str = "127.0.0.1"
    """The address to listen at. 0.0.0.0 opens it to other machines."""
    port: int = Field(8080, ge=0, le=65535)
    metrics_port: int | None = Field(9090, ge=0, le=65535)
    """The port where Prometheus reads the metrics (`/metrics`). null: no such port."""
    body_mib: int = Field(32, ge=1, le=1024)
    """The largest request body, in MiB."""
    anonymous: Rights | None = None
    """true, or the rights of clients without a known key. Default: a key is required."""
    keys: tuple[Key, ...] = ()
    keys_file: str | None = None
    """A file with more `keys` (a mounted Secret): `keys: [...]`. Its path is relative to this file.
    It is read again when it changes."""
    limits: Limits = Limits()
    """The limits of all clients together."""
    times: Times = Times()
    page: bool = False
    """Serve a page at `/` where people can ask the models. They type their key there."""
    feedback: FeedbackSettings | None = None
    """Keep questions, answers and ratings of keys with `feedback: true`. Default: keep nothing."""
    models: dict[ModelName, PlainModel] = Field({})
    mixtures: dict[ModelName, OnlineMixture] = Field({})
    """Mixtures by name: proposers and an aggregator of `models`, in the recipe's form."""
    promoted: dict[ModelName, PromotedModel] = Field({})
    """Promoted models by name: two slots, so that a new version can run beside the old one."""
    cluster: ClusterPart = ClusterPart()

    @property
    def names(self) -> list[str]:
        """The names that clients may use."""
        plain = (name for name in self.models if name not in self.slots)
        return [*plain, *self.mixtures, *self.promoted]

    @property
    def slots(self) -> set[str]:
        """The models that are slots of promoted ones.
        Clients use the promoted model's name instead."""
        return {model for each in self.promoted.values() for model in each.slots.values()}

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        found = [*self._nobody_may_ask(), *self._unknown_names(), *same_keys(self.keys)]
        found += slot_problems(self.promoted, self.models)
        turns = {name: model.takes_turns_in for name, model in self.models.items()}
        if found := [*found, *problems(self.mixtures, turns)]:
            raise Problems(found)
        return self

    def _nobody_may_ask(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        if not self.names:
            yield ("models",), "there is no model. Add one with its endpoints."
        if self.anonymous is None and not self.keys and not self.keys_file:
            yield (
                ("keys",),
                "there is no key, so nobody could ask. Add one (`name`, and `sha256`: the hash of "
                'the key, `printf %s "$KEY" | sha256sum`), or set anonymous: true on a machine '
                "that only you can reach.",
            )

    def _unknown_names(self) -> Iterator[tuple[tuple[str | int, ...], str]]:
        rights: list[tuple[tuple[str | int, ...], Rights]] = [
            (("keys", index), key) for index, key in enumerate(self.keys)
        ]
        if self.anonymous is not None:
            rights.append((("anonymous",), self.anonymous))
        for address, given in rights:
            for index, name in enumerate(given.models or ()):
                if name not in self.names:
                    yield (
                        (*address, "models", index),
                        f"'{name}' is not one of the models ({', '.join(self.names)}).",
                    )


def load_config(path: Path) -> GatewayConfig:
    """Return the configuration in a file. Raises RecipeError with every problem in it, one line
    each: file:line, the field, what was given, what is allowed."""
    return parse_config(document_of(path, "the file"), str(path), path.parent)


def parse_config(text: str, name: str, folder: Path | None = None) -> GatewayConfig:
    """Return the configuration in a YAML text. `name`: what errors call its file. Values of the
    form `file:PATH` are read from `folder`."""
    errors: list[str] = []
    given = read(text, name, errors, "the file of a gateway")
    inline(given, folder, errors)
    secrets.refuse_written(given, errors)
    if (anonymous := given.value.get("anonymous")) and isinstance(anonymous.value, bool):
        anonymous.value = {} if anonymous.value else None
    keys = given.value.get("keys_file")
    if keys and folder is not None and isinstance(keys.value, str):
        keys.value = str(folder / keys.value)
    config = checked(given, GatewayConfig, errors)
    if errors or config is None:
        raise RecipeError("\n".join(dict.fromkeys(errors)))
    return config


def missing_keys(config: GatewayConfig) -> list[str]:
    """Return one sentence for each environment variable that is needed and not set."""
    return [
        f"models.{name}.key_env: the environment variable {model.key_env} is not set. Set it to "
        f"the API key of {', '.join(urls.origin(url) for url in model.endpoints) or name}."
        for name, model in config.models.items()
        if model.key_env and not os.environ.get(model.key_env, "").strip()
    ]
