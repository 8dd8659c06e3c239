"""Checks what a run reads: its store, API keys, prompts, models and endpoints."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from moaa.errors import HubAway, MoaaError, RecipeError, without_stop
from moaa.preflight.finding import Finding, attempt, unseen
from moaa.preflight.run import PlannedRun
from moaa.preflight.system_role import gets_system_messages
from moaa.prompts import sources
from moaa.prompts.prompt import read_prompt
from moaa.prompts.sources import SETS, every_source
from moaa.recipe.next_round import planned
from moaa.recipe.rounds import SLICED
from moaa.recipe.schema import Model, Source
from moaa.recipe.secrets import endpoint_keys
from moaa.store import Store
from moaa.weights.local import is_hub_id
from moaa.weights.revisions import commit, is_commit

FIRST_ROWS = 20
"""One of this many first rows must have a prompt. One row may be unreadable; with a wrong field
name all of them are."""


def store(run: PlannedRun) -> Iterator[Finding]:
    """Check that the store can be written, read and deleted from."""
    yield attempt(
        "store",
        run.store.check,
        f"{run.store.root}: write, conditional write, read and delete work",
        "check store.root, store.endpoint_url (or AWS_ENDPOINT_URL_S3) and the two keys' "
        "environment variables",
    )


def secrets(run: PlannedRun) -> Iterator[Finding]:
    """Check the environment variables with API keys. Their values are not read."""
    needed = {
        variable: f"models.{name}.endpoint.key_env"
        for name, variable in endpoint_keys(run.recipe).items()
    }
    needed |= dict.fromkeys(run.recipe.runtime.secret_envs, "runtime.secret_envs")
    secret = run.recipe.runtime.cluster.env_secret
    for variable, field in sorted(needed.items()):
        present = bool(os.environ.get(variable))
        fix = f"export {variable}=…"
        if "KUBERNETES_SERVICE_HOST" in os.environ:
            fix = f"put {variable} into the Secret '{secret}' of this pod's namespace"
        state = "set" if present else "not set"
        yield Finding("secret", present, f"{variable} ({field}) is {state}", fix)


def remote_code(run: PlannedRun) -> Iterator[Finding]:
    """List the models that run code from their repositories: the recipe allows it."""
    for name, model in run.recipe.models.items():
        if model.trust_remote_code:
            pinned = f"revision {model.revision}" if model.revision else "whatever revision is new"
            detail = f"{name}: Python code of {model.source} runs, {pinned} (trust_remote_code)"
            yield Finding("code", True, detail)


def prompts_and_hub_models(run: PlannedRun) -> Iterator[Finding]:
    """Check that each source has prompts, and that the hub has the models of the run.

    A hub that does not answer is one finding, and is not asked again. A problem that several
    sources share, such as a missing package, is one finding too.
    """
    shown: set[Finding] = set()
    for found in _findings([*_prompt_looks(run), *_round_looks(run), *_model_looks(run)]):
        if found not in shown:
            shown.add(found)
            yield found


def _findings(looks: Sequence[_Look]) -> Iterator[Finding]:
    away = False
    for on_hub, check, look, detail, fix in looks:
        if on_hub and away:
            continue
        try:
            look()
        except HubAway as error:
            away = True
            needed = sum(each.on_hub for each in looks)
            what = f"{without_stop(error)} (this recipe has {needed} sources on the hub)"
            yield Finding("hub", False, what, "reach the hub, or name s3:// copies")
        except MoaaError as error:
            yield Finding(check, False, str(error), fix)
        else:
            yield Finding(check, True, detail)


class _Look(NamedTuple):
    on_hub: bool
    check: str
    look: Callable[[], object]
    detail: str
    fix: str


def _prompt_looks(run: PlannedRun) -> Iterator[_Look]:
    for name in SETS:
        for source in getattr(run.recipe.prompts, name):
            yield _Look(
                source.source.startswith("hub:"),
                "prompts",
                partial(_first_prompt, name, source, run.store),
                f"{source.source} can be read",
                "name a source that this machine can read (a path, s3://…, hub:NAME, "
                "package:PATH), and as its `field` a column that its rows have",
            )


def _round_looks(run: PlannedRun) -> Iterator[_Look]:
    """Yield the check of the last row of the last round, in each source that rounds divide."""
    last = planned(run.recipe)[-1]
    if not last.rounds.sliced:
        return
    for name in SLICED:
        for source in getattr(last.prompts, name):
            yield _Look(
                source.source.startswith("hub:"),
                "rounds",
                partial(_last_row, name, source, last.rounds.n, run.store),
                f"{source.source} has the rows of {last.rounds.n} rounds",
                "lower the source's limit or rounds.n, or set rounds.prompts to 'same'",
            )


def _last_row(name: str, source: Source, number: int, store: Store) -> None:
    held = sum(1 for _ in sources.rows(source, store))
    sources.refuse_short(name, source, held, number)


def _model_looks(run: PlannedRun) -> Iterator[_Look]:
    target = {run.recipe.target} if run.trains else set()
    for name in sorted(run.loaded | target):
        model = run.recipe.models[name]
        if is_hub_id(model.source) and not is_commit(model.revision):
            yield _Look(
                True,
                "model",
                partial(commit, model.source, model.revision, "model"),
                f"{name}: the hub has {model.source}",
                f"correct models.{name}.source and its revision, or name a copy",
            )


def _first_prompt(name: str, source: Source, store: Store) -> None:
    """Check that one of the first rows has a prompt, read as the stage does. Raises RecipeError."""
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


def readable_by_pods(run: PlannedRun) -> Iterator[Finding]:
    """Check the addresses of prompts and models: a pod cannot read paths of this machine."""
    models = run.recipe.models
    named = {f"prompts: {each.source}": each.source for each in every_source(run.recipe.prompts)}
    named |= {
        f"models.{name}: {model.source}": model.source
        for name, model in models.items()
        if not model.endpoint
    }
    for what, source in named.items():
        if source.startswith("s3://"):
            found = _exists(run.store, source)
            detail = f"{what} {'exists' if found else 'is empty'}"
            yield Finding("address", found, detail, "upload it, or correct the address")
        elif source.startswith("package:"):
            detail = f"{what}: the run's own preflight checks whether the images have this package"
            yield unseen("address", detail)
        elif source.startswith((".", "/", "~")) or Path(source).exists():
            fix = "upload it to S3 and name its s3:// address, or name a hub id"
            detail = f"{what} is a path of this machine: pods cannot read it"
            yield Finding("address", False, detail, fix)


def packages_and_s3_models(run: PlannedRun) -> Iterator[Finding]:
    """Check models from Python packages and from S3."""
    for name, model in run.recipe.models.items():
        if model.source.startswith("package:"):
            yield _package(run, name, model)
        elif model.source.startswith("s3://"):
            found = any(True for _ in run.store.list(model.source))
            detail = f"{name}: {model.source} {'exists' if found else 'is empty'}"
            fix = f"upload the model below this address, or correct models.{name}.source"
            yield Finding("model", found, detail, fix)


def _package(run: PlannedRun, name: str, model: Model) -> Finding:
    from moaa.weights import local

    found = attempt(
        "model",
        partial(local.package_file, model.source.removeprefix("package:")),
        f"{name}: {model.source} is installed",
        "make setup installs the demo's packages into .cache/pkgs",
    )
    if found.ok or name in run.loaded:
        return found
    detail = f"{name}: {model.source} is not in this image; the images that serve and train need it"
    return unseen("model", detail)


def model_folders(run: PlannedRun) -> Iterator[Finding]:
    """Check the models that this machine loads from its own disk."""
    for name in sorted(run.loaded):
        model = run.recipe.models[name]
        if model.source.startswith(("s3://", "package:")):
            continue
        found = attempt(
            "model",
            partial(_loadable, model, run.store),
            f"{name}: {model.source} exists",
            f"correct models.{name}.source",
        )
        # A hub id is not checked, so there is nothing to report.
        if not found.ok or Path(model.source).expanduser().exists():
            yield found


def _loadable(model: Model, store: Store) -> None:
    """Check that a path has a model. Raises RecipeError if not."""
    from moaa.weights import local

    path = Path(model.source).expanduser()
    if path.suffix == ".gguf" and path.is_file() and model.revision is None:
        return  # converting it would take too long here
    local.resolve(model.source, store, model.revision)


def endpoints(run: PlannedRun) -> Iterator[Finding]:
    """Check that each endpoint answers for its model."""
    for name, model in run.recipe.models.items():
        if model.endpoint:
            yield attempt(
                "endpoint",
                partial(_answers, run, name, model),
                f"{name}: {model.endpoint.url} answers",
                f"start the server, or correct models.{name}.endpoint",
            )


def _answers(run: PlannedRun, name: str, model: Model) -> None:
    import asyncio

    from moaa.chat.client import Client
    from moaa.engines.endpoint import endpoint
    from moaa.ledger import Ledger

    async def answers() -> None:
        async with Client(run.recipe.runtime.calls, Ledger()) as client:
            client.pool(name).add(endpoint(name, model, run.recipe.runtime))
            await client.ready(name, timeout_s=60)
            if model.system_role and gets_system_messages(run.recipe, name):
                await client.ready(name, timeout_s=60, system="Answer briefly.")

    asyncio.run(answers())


def _exists(store: Store, uri: str) -> bool:
    return any(True for _ in store.list(uri)) or store.exists(uri)
