"""Checks what a run needs from this machine besides its inputs: engines, trainings and disks."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final

from moaa.declaration import Declaration
from moaa.packages import install_command
from moaa.preflight import (
    benchmarks,
    inputs,
    labeller,
    licences,
    production,
    system_role,
    template,
)
from moaa.preflight.finding import Finding, attempt, unseen
from moaa.preflight.run import PlannedRun
from moaa.recipe.model_size import CHECKPOINT_BYTES, WEIGHT_BYTES, weights_gib
from moaa.recipe.schema import Recipe
from moaa.store import Store

MIN_FREE_GIB = 5
LOGS: Final = "trainings and logs"
SERVE_FIX = (
    "A model with an `endpoint` needs no vLLM here; the models that the run trains always need it, "
    "for sample and evaluate"
)


def findings(
    recipe: Recipe,
    store: Store,
    stages: Sequence[Declaration],
    *,
    local: bool,
    in_pods: bool = False,
) -> Iterator[Finding]:
    """Yield all findings of this machine.

    `local`: engines and trainings of kind 'process' start here. `in_pods`: the stages run in pods,
    and this machine is not one of them. The preflight in the pods then checks the rest.
    """
    run = PlannedRun(recipe, store, stages, local)
    if in_pods:
        checks = [inputs.store, inputs.remote_code, inputs.readable_by_pods, _endpoint_engines]
    else:
        checks = [inputs.store, inputs.secrets, inputs.remote_code]
        checks += [inputs.prompts_and_hub_models]
        checks += [inputs.packages_and_s3_models]
        checks += [inputs.endpoints, _endpoint_engines]
        checks += [_engines, inputs.model_folders, _training] if local else []
        checks += [_disks]
    hub_away = False
    for check in checks:
        for found in check(run):
            hub_away = hub_away or (found.check == "hub" and not found.ok)
            yield found
    yield from template.findings(run, hub_away=hub_away)
    yield from system_role.findings(run, hub_away=hub_away)
    yield from labeller.findings(run, hub_away=hub_away)
    yield from licences.findings(run.recipe)
    if name := recipe.publishes_as:
        yield production.finding(recipe, store, name)
    if not in_pods:
        yield from benchmarks.findings(run, hub_away=hub_away)


def _endpoint_engines(run: PlannedRun) -> Iterator[Finding]:
    """Check that no engine must be started if engines are of kind 'endpoint'.

    Such engines start nothing, and the models that the run trains have no endpoint yet.
    """
    if run.recipe.runtime.engines.kind != "endpoint":
        return
    kind = "runtime.engines.kind is 'endpoint', but"
    fix = (
        "set runtime.engines.kind to 'process' (or 'kubernetes'); models that have an `endpoint` "
        "still use it"
    )
    if missing := ", ".join(sorted(run.started)):
        yield Finding("engine", False, f"{kind} these models have no `endpoint`: {missing}", fix)
    if run.serves_tuned:
        detail = f"{kind} sample and evaluate must serve the models that the run trains"
        yield Finding("engine", False, detail, fix)


def _engines(run: PlannedRun) -> Iterator[Finding]:
    kind = run.recipe.runtime.engines.kind
    if kind == "kubernetes" and importlib.util.find_spec("vllm") is None:
        detail = (
            "vllm is not installed here: sample and evaluate could not serve the models that the "
            "run trains"
        )
        yield unseen("engine", detail)
    needed = run.started | ({run.recipe.target} if run.serves_tuned else set())
    if kind == "process" and needed:
        detail = f"vllm is installed; to serve here: {', '.join(sorted(needed))}"
        yield attempt("engine", partial(_devices_for, run.recipe, needed), detail, SERVE_FIX)


def _devices_for(recipe: Recipe, names: set[str]) -> None:
    """Check that vLLM can run here with enough GPUs for each model. Raises EngineError if not."""
    from moaa.engines import devices

    found = devices.hardware()
    if found.kind == "cuda":
        sizes = {name: recipe.models[name].tensor_parallel for name in names}
        devices.shares(sizes, len(found.ids))


def _training(run: PlannedRun) -> Iterator[Finding]:
    launcher = run.recipe.runtime.launcher
    if launcher.kind != "process" or not run.trains:
        return
    from moaa.train import process

    for package in process.PACKAGES:
        check, detail = partial(process.check_packages, [package]), f"{package} is installed"
        yield attempt("training", check, detail, install_command("moaa[train]"))
    if launcher.nodes != 1:
        check = partial(process.check_nodes, launcher)
        yield attempt("training", check, "", "correct runtime.launcher.nodes or its kind")
    unit, most = process.room_for_ranks(launcher.device)
    yield attempt(
        "training",
        partial(process.check_ranks, launcher.ranks, launcher.device),
        f"runtime.launcher.ranks is {launcher.ranks}; this machine has {most} {unit}",
        "correct runtime.launcher.ranks or its device",
    )


def _disks(run: PlannedRun) -> Iterator[Finding]:
    """Check the room for logs, trainings and models: one finding for each disk."""
    trains = run.local and run.recipe.runtime.launcher.kind == "process" and run.trains
    target = run.recipe.models[run.recipe.target]
    weights = (weights_gib(target.source) or 0) if trains else 0
    checkpoint = weights * CHECKPOINT_BYTES // WEIGHT_BYTES
    for places in _places(run, weights):
        folders = ", ".join(f"{what} ({folder})" for what, (folder, _) in places.items())
        free = shutil.disk_usage(next(iter(places.values()))[0]).free / 2**30
        needed = max(MIN_FREE_GIB, sum(gib for _, gib in places.values()))
        detail = f"{free:.0f} GiB free for {folders}"
        if LOGS in places and free < needed + checkpoint:
            detail += (
                f"; checkpoints of about {checkpoint} GiB may not fit: the training then goes on "
                "without them"
            )
        fix = f"free at least {needed} GiB, or set TMPDIR, MOAA_CACHE or HF_HOME"
        yield Finding("disk", free >= needed, detail, fix)


def _places(run: PlannedRun, weights: int) -> list[dict[str, tuple[Path, int]]]:
    """Return, for each disk, what this machine writes there: {purpose: (folder, GiB)}."""
    from moaa.weights import hub, local

    places = {LOGS: (Path(tempfile.gettempdir()), weights)}
    if run.local:
        # A trained model is downloaded again, to be served or trained further.
        places["models of S3"] = (local.cache(), weights)
        places["models of the hub"] = (hub.cache(), 0)
    disks: dict[int, dict[str, tuple[Path, int]]] = {}
    for what, (folder, gib) in places.items():
        existing = next(path for path in (folder, *folder.parents) if path.exists())
        disks.setdefault(existing.stat().st_dev, {})[what] = (existing, gib)
    return list(disks.values())
