"""What a run needs of where it works: the store, secrets, prompts, models, and, where this is it, engines and trainers."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from moaa import sources
from moaa.errors import RecipeError
from moaa.recipe.schema import Recipe, Source
from moaa.stages.preflight.finding import Finding, attempt, unseen
from moaa.stages.prompts import every_source
from moaa.store import Store

MIN_FREE_GIB = 5


def findings(recipe: Recipe, store: Store, *, alone: bool, outside: bool = False) -> Iterator[Finding]:
    """All findings of this machine.

    `alone`: engines and trainings that are processes would be started here. `outside`: the stages run in pods, not here:
    what is a matter of their own is left to their own preflight.
    """
    if outside:
        for look in (_store, _readable_by_pods):
            yield from look(recipe, store)
        return
    for look in (_store, _secrets, _prompts, _models, _endpoints, *((_engines, _training) if alone else ()), _disk):
        yield from look(recipe, store)


def _readable_by_pods(recipe: Recipe, store: Store) -> Iterator[Finding]:
    """Prompts and models by their addresses: what only this machine has, no pod can read."""
    named = {f"prompts: {source.source}": source.source for source in every_source(recipe.prompts)}
    named |= {f"models.{name}: {model.source}": model.source for name, model in recipe.models.items() if not model.endpoint}
    for what, source in named.items():
        if source.startswith("s3://"):
            found = any(True for _ in store.list(source)) or store.exists(source)
            yield Finding(
                "address", found, f"{what} {'is there' if found else 'holds nothing'}", "upload it, or correct the address"
            )
        elif source.startswith("package:"):
            yield unseen("address", f"{what}: whether the images hold this package shows in the run's own preflight")
        elif source.startswith((".", "/", "~")) or Path(source).exists():
            fix = "upload it to S3 and name its s3:// address, or name a hub id"
            yield Finding("address", False, f"{what} is a path of this machine: no pod has it", fix)


def _store(recipe: Recipe, store: Store) -> Iterator[Finding]:
    yield attempt(
        "store", store.check, f"{store.root}: write, conditional write, read and delete work",
        "check store.root, store.endpoint_url (or AWS_ENDPOINT_URL_S3) and the two keys' environment variables",
    )  # fmt: skip


def _secrets(recipe: Recipe, store: Store) -> Iterator[Finding]:
    needed = {model.endpoint.key_env: f"models.{name}.endpoint.key_env" for name, model in recipe.models.items()
              if model.endpoint and model.endpoint.key_env}  # fmt: skip
    needed |= dict.fromkeys(recipe.runtime.secret_envs, "runtime.secret_envs")
    for variable, where in sorted(needed.items()):
        present = bool(os.environ.get(variable))
        yield Finding("secret", present, f"{variable} ({where}) is {'set' if present else 'not set'}", f"export {variable}=…")


def _prompts(recipe: Recipe, store: Store) -> Iterator[Finding]:
    for source in every_source(recipe.prompts):
        yield attempt(
            "prompts", partial(_first_row, source, store), f"{source.source} can be read",
            "give a source that this machine can read (a path, s3://…, hub:NAME, package:PATH)",
        )  # fmt: skip


def _first_row(source: Source, store: Store) -> None:
    if next(sources.rows(source, store), None) is None:
        raise RecipeError(f"prompt source '{source.source}' gives no row (offset {source.offset}, limit {source.limit})")


def _models(recipe: Recipe, store: Store) -> Iterator[Finding]:
    from moaa import models

    for name, model in recipe.models.items():
        if model.source.startswith("package:"):
            yield attempt(
                "model", partial(models.package_file, model.source.removeprefix("package:")),
                f"{name}: {model.source} is installed", "make setup installs the demo's packages into .cache/pkgs",
            )  # fmt: skip
        elif model.source.startswith("s3://"):
            found = any(True for _ in store.list(model.source))
            yield Finding("model", found, f"{name}: {model.source} {'is there' if found else 'holds nothing'}",
                          "upload the model below this address, or correct models.*.source")  # fmt: skip


def _engines(recipe: Recipe, store: Store) -> Iterator[Finding]:
    kind = recipe.runtime.engines.kind
    present = importlib.util.find_spec("vllm") is not None
    if kind == "kubernetes" and not present:
        yield unseen("engine", "vllm is not installed here: sample and evaluate could not serve what the run trains")
    elif kind == "process" and not all(model.endpoint for model in recipe.models.values()):
        yield Finding("engine", present, f"vllm is {'installed' if present else 'not installed'}",
                      "pip install 'moaa[serve]' (GPU) or 'moaa[serve-cpu]', or give the models an endpoint")  # fmt: skip


def _endpoints(recipe: Recipe, store: Store) -> Iterator[Finding]:
    remote: dict[str, Any] = {name: model for name, model in recipe.models.items() if model.endpoint}
    if not remote:
        return
    import asyncio

    from moaa.chat.client import Client
    from moaa.engines.endpoint import endpoint
    from moaa.ledger import Ledger

    async def answers(name: str) -> None:
        async with Client(recipe.runtime.calls, Ledger()) as client:
            client.pool(name).add(endpoint(name, remote[name]))
            await client.ready(name, timeout_s=60)

    def check(name: str) -> None:
        asyncio.run(answers(name))

    for name, model in remote.items():
        yield attempt(
            "endpoint", partial(check, name), f"{name}: {model.endpoint.url} answers",
            "start the server, or correct models.*.endpoint",
        )  # fmt: skip


def _training(recipe: Recipe, store: Store) -> Iterator[Finding]:
    if recipe.runtime.launcher.kind != "process":
        return
    for package in ("torch", "trl", "deepspeed"):
        present = importlib.util.find_spec(package) is not None
        yield Finding(
            "training", present, f"{package} is {'installed' if present else 'not installed'}", "pip install 'moaa[train]'"
        )


def _disk(recipe: Recipe, store: Store) -> Iterator[Finding]:
    free = shutil.disk_usage(os.environ.get("TMPDIR", "/tmp")).free / 2**30
    yield Finding("disk", free >= MIN_FREE_GIB, f"{free:.0f} GiB free for models and logs", f"free at least {MIN_FREE_GIB} GiB")
