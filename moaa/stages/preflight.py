"""Checks everything that would make a run fail later, before it is paid for.

The checks are in `moaa.preflight`. Each finding says what is wrong and how to fix it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict

from moaa import plan
from moaa.attempt import recorded
from moaa.declaration import Declaration
from moaa.errors import ClusterError, RecipeError
from moaa.placement import compiled
from moaa.preflight import capacity, machine, slots
from moaa.preflight import cluster as on_cluster
from moaa.preflight.finding import Finding, PreflightFailed, refuse, unseen
from moaa.preflight.terminal import show
from moaa.progress.messages import say
from moaa.recipe.schema import Recipe
from moaa.stages.table import PREFLIGHT, of_recipe, of_run
from moaa.store import Store
from moaa.task import Task

__all__ = ["Finding", "PreflightFailed", "findings", "main", "refuse", "show"]

RECOMPILE = (
    "compile the pipeline from this recipe, or start the run by `moaa submit RECIPE`, which does"
)


def findings(
    recipe: Recipe,
    store: Store,
    run: Sequence[Declaration],
    compiled_from: str = "",
    *,
    elsewhere: bool = False,
) -> list[Finding]:
    """Return all findings for a run of these stages. The checks continue after a failure.

    `compiled_from`: what the compiled pipeline took from its recipe, if this is a task of one.
    Other tasks then have their own images, and the engines and trainers installed here are not
    checked. `elsewhere`: this machine checks a recipe for a cluster; no stage will run here.
    """
    agreed = list(agreement(recipe, compiled_from)) if compiled_from else []
    if not all(each.ok for each in agreed):
        return agreed  # the pods are different: no address of this recipe is used
    wanted = on_cluster.wanted(recipe)
    local, in_pods = not compiled_from, elsewhere and wanted
    found = [*machine.findings(recipe, store, run, local=local, in_pods=in_pods), *agreed]
    if wanted or compiled_from:
        found += _on_cluster(recipe, store, run, kubeflow=bool(compiled_from))
    if slots.wanted(recipe, run):
        found += slots.findings(recipe, in_pods=in_pods)
    return found


def agreement(recipe: Recipe, compiled_from: str) -> Iterator[Finding]:
    """Yield a finding for each field on which the compiled pods and this recipe differ."""
    differ = compiled.differences(recipe, of_recipe(recipe), compiled_from)
    for detail in differ:
        yield Finding("compiled pipeline", False, detail, RECOMPILE)
    if not differ:
        yield Finding("compiled pipeline", True, "its pods are the same as this run's recipe needs")


def _on_cluster(
    recipe: Recipe, store: Store, run: Sequence[Declaration], *, kubeflow: bool
) -> Iterator[Finding]:
    from moaa.kubernetes.api import Cluster

    try:
        cluster = Cluster.connect(recipe.runtime.cluster.namespace)
    except ClusterError as error:
        if on_cluster.wanted(recipe):
            fix = "set KUBECONFIG; for a run on this machine set the recipe's kinds to 'process'"
            yield Finding("cluster", False, str(error), fix)
        else:
            yield unseen("cluster", str(error))
        return
    yield from on_cluster.findings(recipe, store, cluster, run, kubeflow=kubeflow)


def main(task: Task, summary: str = "", compiled_from: str = "") -> None:
    """Check; fail with the table of what is not ok. The record gets the plan of the run."""
    with recorded(PREFLIGHT, task, summary) as attempt:
        loaded = attempt.recipe
        found = findings(loaded, attempt.store, of_run(loaded), compiled_from)
        facts = {
            "findings": [asdict(each) for each in found],
            "plan": plan.as_rows(plan.lines(loaded, of_recipe(loaded))),
            "prices": _prices(loaded),
            "gpus": _gpus(loaded),
            "stages": [stage.name for stage in of_run(loaded)],
        }
        attempt.record["facts"] = facts
        if compiled_from or on_cluster.wanted(loaded):
            with suppress(OSError):  # a closed pipe: the findings are recorded
                show(found)
        refuse(found)
        attempt.record["status"] = "done"
        say(f"preflight: {len(found)} checks passed")


def _prices(recipe: Recipe) -> dict[str, dict[str, float]]:
    """Return the dollars per million tokens of the models that have a price. The report prices the
    tokens that were really used."""
    return {name: model.price.model_dump() for name, model in recipe.models.items() if model.price}


def _gpus(recipe: Recipe) -> dict[str, dict[str, float]]:
    """What each stage holds of GPUs. A recipe whose pods cannot be is refused by its findings."""
    try:
        return capacity.gpus_held(recipe, of_recipe(recipe))
    except RecipeError:
        return {}
