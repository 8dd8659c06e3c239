"""Everything that would make a run fail later, looked at now: each finding says what is wrong and
how to mend it.

finding   what a finding is; shown: how it is printed
here      the store, secrets, prompts, models; engines and trainers of this machine
baked     whether the compiled pipeline and the run's recipe agree
cluster   what the run needs there: objects, rights, capacity, clocks
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict

from moaa import plan
from moaa.errors import ClusterError
from moaa.placement import compiled
from moaa.preflight import machine as here
from moaa.preflight.cluster import findings as cluster_findings
from moaa.preflight.cluster import wanted
from moaa.preflight.finding import Finding, PreflightFailed, refuse, unseen
from moaa.preflight.terminal import show
from moaa.recipe.schema import Recipe
from moaa.stage import recorded, say
from moaa.store import Store

__all__ = ["Finding", "PreflightFailed", "findings", "main", "refuse", "show"]

RECOMPILE = "compile the pipeline from this recipe, or start the run by `python -m pipelines submit RECIPE`, which does"


def findings(
    recipe: Recipe, store: Store, baked: str = "", *, elsewhere: bool = False
) -> list[Finding]:
    """All findings for this recipe; the checks go on after a failure, so that all is seen at once.

    `baked`: what the compiled pipeline took from its recipe, where this is a task of one. Other
    tasks then have images of their own, and nothing is said about the engines and trainers
    installed here. `elsewhere`: a recipe for a cluster is looked at from a machine on which no
    stage will run.
    """
    on_cluster = wanted(recipe)
    found = list(here.findings(recipe, store, alone=not baked, outside=elsewhere and on_cluster))
    if baked:
        found += agreement(recipe, baked)
    if on_cluster or baked:
        found += _on_cluster(recipe, store, kubeflow=bool(baked))
    return found


def agreement(recipe: Recipe, baked: str) -> Iterator[Finding]:
    """Whether the pods that were compiled are those that this recipe wants; one finding for each
    field that differs."""
    differ = compiled.differences(recipe, baked)
    for detail in differ:
        yield Finding("compiled pipeline", False, detail, RECOMPILE)
    if not differ:
        yield Finding(
            "compiled pipeline", True, "its pods are those that this run's recipe asks for"
        )


def _on_cluster(recipe: Recipe, store: Store, *, kubeflow: bool) -> Iterator[Finding]:
    from moaa.kubernetes.api import Cluster

    try:
        cluster = Cluster.connect(recipe.runtime.cluster.namespace)
    except ClusterError as error:
        if wanted(recipe):
            fix = "set KUBECONFIG; for a run on this machine set the recipe's kinds to 'process'"
            yield Finding("cluster", False, str(error), fix)
        else:
            yield unseen("cluster", str(error))
        return
    yield from cluster_findings(recipe, store, cluster, kubeflow=kubeflow)


def main(recipe: str, run_id: str, summary: str = "", baked: str = "") -> None:
    """Look, and fail with the table of what is not ok. The plan of calls and tokens goes into the
    record."""
    with recorded("preflight", recipe, run_id, summary) as (loaded, store, record):
        found = findings(loaded, store, baked)
        record["facts"] = {
            "findings": [asdict(f) for f in found],
            "plan": plan.as_rows(loaded),
            "prices": _prices(loaded),
        }
        if baked or wanted(loaded):
            show(found)
        refuse(found)
        record["status"] = "done"
        say(f"preflight: {len(found)} checks passed")


def _prices(recipe: Recipe) -> dict[str, dict[str, float]]:
    """Dollars per million tokens, of the models that state them: the report prices the tokens that
    were really used."""
    return {name: model.price.model_dump() for name, model in recipe.models.items() if model.price}
