"""Which stages serve or train in their own pod, and on how many GPUs.

With engines of kind `process`, a stage that asks models serves them in its own pod, on GPUs of
their pool. With engines of the cluster it only asks. But no Deployment has the weights that the run
has just trained: sample and evaluate serve those in their own pod, with the model that they were
trained from. Trainings are processes of the pod, or jobs of the cluster.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Literal

from moaa.declaration import Declaration
from moaa.errors import RecipeError
from moaa.recipe.rounds import made_by_run
from moaa.recipe.schema import Launcher, Model, Pool, Recipe


@dataclass(frozen=True, slots=True)
class PodRole:
    """What a stage's pod does itself. `pool` None: any node. Without GPUs it uses CPUs."""

    kind: Literal["serve", "train", "light"]
    pool: str | None = None
    gpus: int = 0


def role(recipe: Recipe, stage: Declaration) -> PodRole:
    """Return the role of a stage's pod. Raises RecipeError for what no single pod can do."""
    launcher = recipe.runtime.launcher
    if stage.trains and launcher.kind == "process":
        return PodRole("train", launcher.pool, training_gpus(launcher, recipe.pools, stage.name))
    models = served(recipe, stage)
    if not models:
        return PodRole("light")
    pool = _pool(stage.name, models)
    return PodRole("serve", pool, _gpus(recipe, stage.name, models, pool))


def served(recipe: Recipe, stage: Declaration) -> list[Model]:
    """Return the models that a stage's own pod serves: those without an endpoint.

    With engines of the cluster: only trained models (also winners of earlier rounds) and their
    base.
    """
    if recipe.runtime.engines.kind == "endpoint":
        return []
    names = stage.models(recipe)
    if recipe.runtime.engines.kind == "kubernetes":
        base = {recipe.target} if stage.tuned else set()
        names &= base | made_by_run(recipe.models)
    own = [recipe.models[name] for name in sorted(names) if not recipe.models[name].endpoint]
    trained = stage.tuned + (stage.production and recipe.measures_production)
    return own + [recipe.models[recipe.target]] * trained


def _pool(stage: str, models: Collection[Model]) -> str | None:
    pools = sorted({model.pool for model in models if model.pool})
    if len(pools) > 1:
        raise RecipeError(
            f"{stage}: with runtime.engines.kind 'process' its models are served in one pod, but "
            "they name the pools "
            f"{', '.join(pools)}. Give them one pool, or set runtime.engines.kind to 'kubernetes'."
        )
    return pools[0] if pools else None


def _gpus(recipe: Recipe, stage: str, models: Collection[Model], pool: str | None) -> int:
    """Return the GPUs that all models of the stage need together, but at most those of a node: with
    fewer the models take turns."""
    if pool is None or not recipe.pools[pool].gpus:
        return 0
    there = recipe.pools[pool].gpus
    largest = max(model.tensor_parallel for model in models)
    if largest > there:
        raise RecipeError(
            f"{stage}: a model's tensor_parallel is {largest}, but a node of pool '{pool}' has "
            f"{there} GPUs. "
            f"Lower it, or correct pools.{pool}.gpus."
        )
    return min(there, sum(model.tensor_parallel * model.replicas for model in models))


def training_gpus(launcher: Launcher, pools: Mapping[str, Pool], stage: str) -> int:
    """Return the GPUs of one node that a training needs. Raises RecipeError if a node of its pool
    has fewer."""
    if launcher.pool is None or launcher.device == "cpu" or not pools[launcher.pool].gpus:
        return 0
    if launcher.ranks > pools[launcher.pool].gpus:
        raise RecipeError(
            f"{stage}: runtime.launcher.ranks is {launcher.ranks}, but a node of pool "
            f"'{launcher.pool}' has "
            f"{pools[launcher.pool].gpus} GPUs. Lower it, or train on several nodes: "
            "runtime.launcher.nodes, with kind 'trainer'."
        )
    return launcher.ranks


def requests(pool: Pool, gpus: int) -> dict[str, str]:
    """Return the requests of a pod with `gpus` of a node's GPUs, in Kubernetes' form. They are its
    limits too."""
    share = max(1, gpus)
    asked = {"cpu": f"{pool.cpus * share:g}", "memory": f"{pool.memory_gib * share:g}Gi"}
    return asked | {pool.accelerator: str(gpus)} if gpus else asked
