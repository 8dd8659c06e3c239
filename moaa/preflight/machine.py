"""What a run needs of where it works: the store, secrets, prompts, models, and, where this is it,
engines and trainers."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from moaa.declaration import Declaration
from moaa.errors import RecipeError
from moaa.preflight.finding import Finding, attempt, unseen
from moaa.prompts import sources
from moaa.prompts.prompt import read_prompt
from moaa.prompts.sources import SETS, every_source
from moaa.recipe.schema import Model, Recipe, Source
from moaa.store import Store

Stages = Sequence[Declaration]
"""The stages of the run, from its first to its last."""

MIN_FREE_GIB = 5
FIRST_ROWS = 20
"""Rows of a source in which one prompt must be found: a single row may be unreadable, a misspelt
field makes all of them so."""
SERVE_FIX = (
    "pip install 'moaa[serve]' (GPU) or 'moaa[serve-cpu]'. An endpoint spares it for every model "
    "but what the run trains: "
    "sample and evaluate serve that here"
)


def findings(
    recipe: Recipe, store: Store, stages: Stages, *, alone: bool, outside: bool = False
) -> Iterator[Finding]:
    """All findings of this machine.

    `alone`: engines and trainings that are processes would be started here. `outside`: the stages
    run in pods, not here: what is a matter of their own is left to their own preflight.
    """
    if outside:
        for look in (_store, _readable_by_pods, _served_by_nobody):
            yield from look(recipe, store, stages)
        return
    mine = (_engines, _folders, _training) if alone else ()
    models = partial(_models, alone=alone)
    for look in (
        _store,
        _secrets,
        _prompts,
        models,
        _endpoints,
        _served_by_nobody,
        *mine,
        partial(_disk, alone=alone),
    ):
        yield from look(recipe, store, stages)


def _trains(stages: Stages) -> bool:
    return any(stage.trains for stage in stages)


def _serves_tuned(stages: Stages) -> bool:
    return any(stage.tuned for stage in stages)


def _without_endpoint(recipe: Recipe, stages: Stages) -> set[str]:
    """The models that these stages ask, and that have to be started for it."""
    asked = {name for stage in stages for name in stage.models(recipe)}
    return {name for name in asked if not recipe.models[name].endpoint}


def _readable_by_pods(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    """Prompts and models by their addresses: what only this machine has, no pod can read."""
    named = {f"prompts: {source.source}": source.source for source in every_source(recipe.prompts)}
    named |= {
        f"models.{name}: {model.source}": model.source
        for name, model in recipe.models.items()
        if not model.endpoint
    }
    for what, source in named.items():
        if source.startswith("s3://"):
            found = any(True for _ in store.list(source)) or store.exists(source)
            yield Finding(
                "address",
                found,
                f"{what} {'is there' if found else 'holds nothing'}",
                "upload it, or correct the address",
            )
        elif source.startswith("package:"):
            yield unseen(
                "address",
                f"{what}: whether the images hold this package shows in the run's own preflight",
            )
        elif source.startswith((".", "/", "~")) or Path(source).exists():
            fix = "upload it to S3 and name its s3:// address, or name a hub id"
            yield Finding("address", False, f"{what} is a path of this machine: no pod has it", fix)


def _store(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    yield attempt(
        "store",
        store.check,
        f"{store.root}: write, conditional write, read and delete work",
        "check store.root, store.endpoint_url (or AWS_ENDPOINT_URL_S3) and the two keys' "
        "environment variables",
    )


def _secrets(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    needed = {
        model.endpoint.key_env: f"models.{name}.endpoint.key_env"
        for name, model in recipe.models.items()
        if model.endpoint and model.endpoint.key_env
    }
    needed |= dict.fromkeys(recipe.runtime.secret_envs, "runtime.secret_envs")
    for variable, where in sorted(needed.items()):
        present = bool(os.environ.get(variable))
        secret = f"put {variable} into the Secret '{recipe.runtime.cluster.env_secret}' of the namespace that this pod is in"
        fix = secret if "KUBERNETES_SERVICE_HOST" in os.environ else f"export {variable}=…"
        yield Finding(
            "secret", present, f"{variable} ({where}) is {'set' if present else 'not set'}", fix
        )


def _prompts(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    for name in SETS:
        for source in getattr(recipe.prompts, name):
            yield attempt(
                "prompts",
                partial(_first_prompt, name, source, store),
                f"{source.source} can be read",
                "give a source that this machine can read (a path, s3://…, hub:NAME, "
                "package:PATH); as its `field` a column "
                "that its rows have",
            )


def _first_prompt(name: str, source: Source, store: Store) -> None:
    """One of the source's first rows holds a prompt, read as the stage will read it. Raises
    RecipeError where none does."""
    where = f"prompts.{name}: source '{source.source}'"
    problems = []
    for raw in islice(sources.rows(source, store), FIRST_ROWS):
        row = read_prompt(raw, source)
        if row.turns and all(row.turns):
            return
        problems.append(row.problem or "no text in its user turns")
    if not problems:
        raise RecipeError(f"{where} gives no row (offset {source.offset}, limit {source.limit})")
    raise RecipeError(f"{where}: no prompt in its first {len(problems)} rows: {problems[0]}")


def _loaded_here(recipe: Recipe, stages: Stages) -> set[str]:
    """The models that engines or trainings load on the machine of the stages."""
    loaded = (
        _without_endpoint(recipe, stages) if recipe.runtime.engines.kind == "process" else set()
    )
    if recipe.runtime.launcher.kind == "process" and _trains(stages):
        loaded |= {recipe.target}  # trained from, wherever it is served
    return loaded


def _models(recipe: Recipe, store: Store, stages: Stages, *, alone: bool) -> Iterator[Finding]:
    from moaa.weights import local as models

    mine = _loaded_here(recipe, stages) if alone else set()
    for name, model in recipe.models.items():
        if model.source.startswith("package:"):
            looked = attempt(
                "model",
                partial(models.package_file, model.source.removeprefix("package:")),
                f"{name}: {model.source} is installed",
                "make setup installs the demo's packages into .cache/pkgs",
            )
            if name not in mine and not looked.ok:
                looked = unseen(
                    "model",
                    f"{name}: {model.source} is not in this image; those that serve and train "
                    "must hold it",
                )
            yield looked
        elif model.source.startswith("s3://"):
            found = any(True for _ in store.list(model.source))
            yield Finding(
                "model",
                found,
                f"{name}: {model.source} {'is there' if found else 'holds nothing'}",
                "upload the model below this address, or correct models.*.source",
            )


def _served_by_nobody(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    """Engines of kind 'endpoint' start nothing, wherever the stages run; but what the run trains
    has no endpoint yet."""
    if recipe.runtime.engines.kind != "endpoint":
        return
    fix = "set runtime.engines.kind to 'process' (or 'kubernetes'): models with an `endpoint` of their own stay there"
    if missing := sorted(_without_endpoint(recipe, stages)):
        yield Finding(
            "engine",
            False,
            f"runtime.engines.kind is 'endpoint', but {', '.join(missing)}: no `endpoint` is given",
            fix,
        )
    if _serves_tuned(stages):
        detail = "runtime.engines.kind is 'endpoint', but sample and evaluate have to serve what the run trains"
        yield Finding("engine", False, detail, fix)


def _engines(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    kind = recipe.runtime.engines.kind
    if kind == "kubernetes" and importlib.util.find_spec("vllm") is None:
        yield unseen(
            "engine",
            "vllm is not installed here: sample and evaluate could not serve what the run trains",
        )
    needed = _without_endpoint(recipe, stages) | (
        {recipe.target} if _serves_tuned(stages) else set()
    )
    if kind == "process" and needed:
        detail = f"vllm is installed; to serve here: {', '.join(sorted(needed))}"
        yield attempt("engine", partial(_devices_for, recipe, needed), detail, SERVE_FIX)


def _devices_for(recipe: Recipe, names: set[str]) -> None:
    """Raises EngineError where no vLLM runs on this machine, or a model wants more GPUs than there
    are."""
    from moaa.engines import devices

    found = devices.hardware()
    if found.kind == "cuda":
        devices.shares(
            {name: recipe.models[name].tensor_parallel for name in names}, len(found.ids)
        )


def _folders(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    """Models that engines or trainings load from this machine's disk."""
    for name in sorted(_loaded_here(recipe, stages)):
        model = recipe.models[name]
        if model.source.startswith(("s3://", "package:")):
            continue
        found = attempt(
            "model",
            partial(_loadable, model, store),
            f"{name}: {model.source} is there",
            f"correct models.{name}.source",
        )
        if (
            not found.ok or Path(model.source).expanduser().exists()
        ):  # of a hub id nothing was looked at
            yield found


def _loadable(model: Model, store: Store) -> None:
    """Raises RecipeError for a path at which there is no model."""
    from moaa.weights import local as models

    path = Path(model.source).expanduser()
    if path.suffix == ".gguf" and path.is_file() and model.revision is None:
        return  # it is converted when it is first loaded: that takes too long for a look
    models.local(model.source, store, model.revision)


def _endpoints(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    remote: dict[str, Any] = {
        name: model for name, model in recipe.models.items() if model.endpoint
    }
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
            "endpoint",
            partial(check, name),
            f"{name}: {model.endpoint.url} answers",
            "start the server, or correct models.*.endpoint",
        )


def _training(recipe: Recipe, store: Store, stages: Stages) -> Iterator[Finding]:
    launcher = recipe.runtime.launcher
    if launcher.kind != "process" or not _trains(stages):
        return
    for package in ("torch", "trl", "deepspeed"):
        present = importlib.util.find_spec(package) is not None
        yield Finding(
            "training",
            present,
            f"{package} is {'installed' if present else 'not installed'}",
            "pip install 'moaa[train]'",
        )
    if launcher.nodes != 1:
        detail = f"runtime.launcher.nodes is {launcher.nodes}, but kind 'process' trains on this machine alone"
        yield Finding(
            "training",
            False,
            detail,
            "set nodes to 1, or runtime.launcher.kind to 'trainer' or 'job'",
        )
    there, what = _for_ranks(launcher.device)
    detail = f"runtime.launcher.ranks is {launcher.ranks}; this machine has {there} {what}"
    fix = (
        f"set ranks to {there} or less"
        if there
        else "set runtime.launcher.device to cpu, or run where GPUs are"
    )
    yield Finding("training", launcher.ranks <= there, detail, fix)


def _for_ranks(device: str) -> tuple[int, str]:
    """How many ranks of a training this machine has room for, and of what: a GPU each, or a core
    each."""
    from moaa.engines import cores, devices

    gpus = len(devices.visible_gpus())
    if device == "cuda" or (device == "auto" and gpus):
        return gpus, "GPUs"
    return len(cores.available()), "cores"


def _disk(recipe: Recipe, store: Store, stages: Stages, *, alone: bool) -> Iterator[Finding]:
    """Room where this machine writes logs and trainings, and where it keeps models: one finding a
    disk."""
    from moaa.placement.helm_values import size_gib
    from moaa.train.checkpoints import BYTES_PER_PARAMETER
    from moaa.weights import hub
    from moaa.weights import local as models

    launcher, target = recipe.runtime.launcher, recipe.models[recipe.target]
    trains = alone and launcher.kind == "process" and _trains(stages)
    weights = (size_gib(target) or 0) if trains else 0
    places = {"trainings and logs": (Path(tempfile.gettempdir()), weights)}
    if alone:
        places["models of S3"] = (
            models.cache(),
            weights,
        )  # what is trained comes back, to be trained on and served
        places["models of the hub"] = (hub.cache(), 0)
    disks: dict[Any, dict[str, tuple[Path, int]]] = {}
    for what, (folder, gib) in places.items():
        there = next(path for path in (folder, *folder.parents) if path.exists())
        disks.setdefault(_disk_of(there), {})[what] = (there, gib)
    for on_it in disks.values():
        free = shutil.disk_usage(next(iter(on_it.values()))[0]).free / 2**30
        needed = max(MIN_FREE_GIB, sum(gib for _, gib in on_it.values()))
        detail = f"{free:.0f} GiB free for " + ", ".join(
            f"{what} ({folder})" for what, (folder, _) in on_it.items()
        )
        checkpoint = weights * BYTES_PER_PARAMETER // 2  # weights take 2 bytes a parameter
        if "trainings and logs" in on_it and free < needed + checkpoint:
            detail += f"; checkpoints of some {checkpoint} GiB may not fit: the training goes on without them"
        yield Finding(
            "disk",
            free >= needed,
            detail,
            f"free at least {needed} GiB, or set TMPDIR, MOAA_CACHE or HF_HOME",
        )


def _disk_of(folder: Path) -> Any:
    return folder.stat().st_dev
