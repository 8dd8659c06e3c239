"""What each task's pod is on a cluster, by one table: image, resources, pool, retries, timeout, caching, secrets, volumes.

    place(recipe, "sample")     # everything about that task's pod, as plain data

Where the recipe's engines are processes, a stage that asks serves its models in its own pod, on GPUs of their pool. Where
they are the cluster's, it only asks, but for what the run itself has trained: no Deployment knows those weights, so sample
and evaluate serve them, with the model they were trained from. Trainings are processes of the pod, or the cluster's.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from components import images
from moaa.errors import RecipeError
from moaa.recipe.schema import Model, Recipe


@dataclass(frozen=True, slots=True)
class Row:
    """One stage in the table. `hours`: after which its pod is ended. `keys`: it needs the endpoints' keys."""

    does: Literal["looks", "asks", "trains"]
    hours: float
    cached: bool = True
    keys: bool = False


TASKS: Mapping[str, Row] = {
    "preflight": Row("looks", 0.5, cached=False, keys=True),
    "prompts": Row("looks", 12),
    "generate": Row("asks", 144, keys=True),
    "sft": Row("trains", 144),
    "sample": Row("asks", 48, keys=True),
    "label": Row("asks", 144, keys=True),
    "dpo": Row("trains", 144),
    "evaluate": Row("asks", 48, keys=True),
    "report": Row("looks", 1, cached=False),
}
RETRIES = 2
"""For pods that are lost. What else can heal, a stage heals itself; running it again after a failure is safe, and quick."""
ALL_ATTEMPTS_S = 7 * 24 * 3600
"""Kubeflow's `backoff_max_duration` is a deadline for all attempts together, and this is its largest value."""
BACKOFF_S, BACKOFF_FACTOR = 30, 2  # a factor that is not whole breaks the retry

CORE_TMP_GIB, HEAVY_TMP_GIB = 20, 2000
"""The most that /tmp may hold: rows on their way to S3; the weights of a whole ensemble."""

S3_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
S3_OPTIONAL = ("AWS_ENDPOINT_URL_S3", "AWS_REGION")


@dataclass(frozen=True, slots=True)
class Secret:
    """Keys of one Secret, and the environment variables that they become."""

    name: str
    variables: dict[str, str]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """A task's pod. Requests and limits as Kubernetes writes them; no accelerator where `gpus` is 0."""

    image: str
    cpu: tuple[str, str]
    memory: tuple[str, str]
    tmp_gib: int
    timeout_s: int
    cached: bool
    secrets: tuple[Secret, ...]
    environment: dict[str, str]
    pool: str | None = None
    node_selector: dict[str, str] = field(default_factory=dict)
    toleration: str | None = None
    accelerator: str = ""
    gpus: int = 0
    shm_gib: float = 0
    image_pull_secrets: tuple[str, ...] = ()


def place(recipe: Recipe, stage: str) -> Place:
    """The pod of one stage. Raises RecipeError for models that cannot be served in one pod."""
    row = TASKS[stage]
    runtime, cluster = recipe.runtime, recipe.runtime.cluster
    served = _served(recipe, stage) if row.does == "asks" else []
    environment = {"HOME": "/tmp", "MOAA_CACHE": "/tmp/moaa"}
    if cluster.namespace:
        environment["MOAA_NAMESPACE"] = cluster.namespace
    common = {
        "timeout_s": round(row.hours * 3600), "cached": row.cached, "secrets": tuple(_secrets(recipe, stage, row)),
        "environment": environment, "image_pull_secrets": cluster.image_pull_secrets,
    }  # fmt: skip
    if served:
        pool = _pool(stage, served)
        return _heavy(images.of(recipe, "serve"), recipe, pool, _gpus(recipe, stage, served, pool), common)
    if row.does == "trains" and runtime.launcher.kind == "process":
        return _heavy(images.of(recipe, "train"), recipe, runtime.launcher.pool, _ranks(recipe, stage), common)
    return Place(image=images.of(recipe, "core"), cpu=("1", "4"), memory=("2Gi", "8Gi"), tmp_gib=CORE_TMP_GIB, **common)  # type: ignore[arg-type]


def runner(recipe: Recipe, stages: Sequence[str]) -> Place:
    """One pod for all of these stages, one after the other: what each of them needs. Raises RecipeError where none can be."""
    places = {stage: place(recipe, stage) for stage in stages}
    if training := [stage for stage, each in places.items() if each.image == images.of(recipe, "train")]:
        raise RecipeError(
            f"{', '.join(training)}: runtime.launcher.kind is 'process', so the runner's pod would have to train itself. "
            "Set it to 'trainer' (Kubeflow Trainer) or 'job' (Indexed Job)."
        )
    most = max(places.values(), key=lambda each: (each.image != images.of(recipe, "core"), each.gpus))
    secrets = tuple(secret for each in places.values() for secret in each.secrets)
    return replace(most, timeout_s=ALL_ATTEMPTS_S, secrets=secrets)


def _heavy(image: str, recipe: Recipe, name: str | None, gpus: int, common: dict[str, object]) -> Place:
    """A pod that serves or trains itself, by its pool's numbers; without a pool, on any node's CPUs."""
    if name is None:
        return Place(image=image, cpu=("1", "8"), memory=("6Gi", "32Gi"), tmp_gib=HEAVY_TMP_GIB, shm_gib=2, **common)  # type: ignore[arg-type]
    pool = recipe.pools[name]
    cpu, memory = f"{pool.cpus * max(1, gpus):g}", f"{pool.memory_gib * max(1, gpus):g}Gi"
    return Place(
        image=image, cpu=(cpu, cpu), memory=(memory, memory), tmp_gib=HEAVY_TMP_GIB, pool=name,
        node_selector=pool.node_selector, toleration=pool.toleration, accelerator=pool.accelerator, gpus=gpus,
        shm_gib=pool.shm_gib, **common,  # type: ignore[arg-type]
    )  # fmt: skip


def _served(recipe: Recipe, stage: str) -> list[Model]:
    """What a stage's own pod serves: models without an endpoint; of the cluster's only the trained ones and their base."""
    if recipe.runtime.engines.kind == "endpoint":
        return []
    target = recipe.models[recipe.target]
    by_stage: dict[str, tuple[Collection[str], int]] = {
        "generate": (recipe.generate.mixture.models, 0),
        "sample": ((), 1),
        "label": (recipe.label.judge.models, 0),
        "evaluate": (recipe.evaluation_judge.models | {recipe.target}, 2),
    }
    names, trained = by_stage[stage]
    if recipe.runtime.engines.kind == "kubernetes":
        names = {recipe.target} if trained > 1 else ()
    return [recipe.models[name] for name in sorted(names) if not recipe.models[name].endpoint] + [target] * trained


def _pool(stage: str, models: Collection[Model]) -> str | None:
    pools = sorted({model.pool for model in models if model.pool})
    if len(pools) > 1:
        raise RecipeError(
            f"{stage}: with runtime.engines.kind 'process' its models are served in one pod, but they name the pools "
            f"{', '.join(pools)}. Give them one pool, or set runtime.engines.kind to 'kubernetes'."
        )
    return pools[0] if pools else None


def _gpus(recipe: Recipe, stage: str, models: Collection[Model], pool: str | None) -> int:
    """As many as all models of the stage take together, at most what a node has: the rest takes turns."""
    if pool is None or not recipe.pools[pool].gpus:
        return 0
    there = recipe.pools[pool].gpus
    largest = max(model.tensor_parallel for model in models)
    if largest > there:
        raise RecipeError(
            f"{stage}: a model's tensor_parallel is {largest}, but a node of pool '{pool}' has {there} GPUs. "
            f"Lower it, or correct pools.{pool}.gpus."
        )
    return min(there, sum(model.tensor_parallel * model.replicas for model in models))


def _ranks(recipe: Recipe, stage: str) -> int:
    """GPUs of a training in the task's own pod."""
    launcher = recipe.runtime.launcher
    if launcher.pool is None or launcher.device == "cpu" or not recipe.pools[launcher.pool].gpus:
        return 0
    if launcher.ranks > recipe.pools[launcher.pool].gpus:
        raise RecipeError(
            f"{stage}: runtime.launcher.ranks is {launcher.ranks}, but a node of pool '{launcher.pool}' has "
            f"{recipe.pools[launcher.pool].gpus} GPUs. Lower it, or train on several nodes: runtime.launcher.kind 'trainer'."
        )
    return launcher.ranks


def _secrets(recipe: Recipe, stage: str, row: Row) -> list[Secret]:
    """S3 for all; the further variables for all but the report; the endpoints' keys for those who ask."""
    cluster, store = recipe.runtime.cluster, recipe.store
    found = [
        Secret(cluster.s3_secret, {key: key for key in S3_KEYS}),
        Secret(cluster.s3_secret, {key: key for key in S3_OPTIONAL}, optional=True),
    ]
    named = dict(zip(S3_KEYS, (store.access_key_env, store.secret_key_env), strict=True))
    if own := {key: name for key, name in named.items() if name != key}:  # besides the usual names: a recipe is read by those
        found.insert(1, Secret(cluster.s3_secret, own))
    names = set(recipe.runtime.secret_envs) if stage != "report" else set()
    if row.keys:
        names |= key_names(recipe)
    if names:
        found.append(Secret(cluster.env_secret, {name: name for name in sorted(names)}))
    return found


def key_names(recipe: Recipe) -> set[str]:
    """The variables that hold the endpoints' API keys."""
    return {model.endpoint.key_env for model in recipe.models.values() if model.endpoint and model.endpoint.key_env}
