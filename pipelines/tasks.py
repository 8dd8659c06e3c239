"""The pod of each task on a cluster, from the declaration of its stage and the recipe.

    place(recipe, SAMPLE)     # image, resources, pool, timeout, caching, secrets: plain data

`moaa.placement.pods` says which pods serve or train themselves, and on how many GPUs.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from moaa.declaration import Declaration
from moaa.errors import RecipeError
from moaa.kubernetes.names import ENGINES_KEY
from moaa.placement import images, pods
from moaa.placement.pod_spec import CORE_TMP_GIB, HEAVY_TMP_GIB, WRITABLE
from moaa.recipe.next_round import planned
from moaa.recipe.schema import Recipe, StoreAddress
from moaa.recipe.secrets import DESTINATIONS_ENV, S3_KEYS, destinations, endpoint_keys
from moaa.stages.table import PREFLIGHT, PROMOTE, REPORT
from moaa.store.client import S3_SETTINGS, SESSION_TOKEN

RETRIES = 2
"""The retries are for lost pods. A stage retries other failures itself; running it again after one
is safe and quick."""
ALL_ATTEMPTS_S = 7 * 24 * 3600
"""Kubeflow's `backoff_max_duration` is a deadline for all attempts together, and this is its
largest value."""
BACKOFF_S, BACKOFF_FACTOR = 5, 2  # the factor must be a whole number, or the retry fails


@dataclass(frozen=True, slots=True)
class Secret:
    """Keys of one Secret, and the environment variables that they become."""

    name: str
    variables: dict[str, str]
    optional: bool = False


@dataclass(frozen=True, slots=True)
class TaskPod:
    """A task's pod. `cpu` and `memory`: request and limit, in Kubernetes' form."""

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


def place(recipe: Recipe, stage: Declaration) -> TaskPod:
    """Return the pod of one stage. Raises RecipeError for models
    that cannot be served in one pod."""
    cluster = recipe.runtime.cluster
    environment = dict(WRITABLE)
    environment[DESTINATIONS_ENV] = json.dumps(destinations(recipe))
    if cluster.namespace:
        environment["MOAA_NAMESPACE"] = cluster.namespace
    common: dict[str, Any] = {
        "timeout_s": round(stage.hours * 3600),
        "cached": stage.cached,
        "secrets": tuple(_secrets(recipe, stage)),
        "environment": environment,
        "image_pull_secrets": cluster.image_pull_secrets,
    }
    own = pods.role(recipe, stage)
    if own.kind == "light":
        return TaskPod(
            image=images.of(recipe.runtime, "serve" if stage.packages(recipe) else "core"),
            cpu=("500m", "4"),
            memory=("1Gi", "8Gi"),
            tmp_gib=CORE_TMP_GIB,
            **common,
        )
    return _heavy(
        images.of(recipe.runtime, own.kind),
        recipe,
        own.pool,
        own.gpus,
        common,
    )


def runner(recipe: Recipe, stages: Iterable[Declaration]) -> TaskPod:
    """Return one pod for all these stages and rounds, one after the other, with what each of them
    needs.

    Raises RecipeError if the pod would have to train.
    """
    wanted = tuple(stages)
    places = {
        stage.name if number == 1 else f"{stage.name} of round {number}": place(each, stage)
        for number, each in enumerate(planned(recipe), 1)
        for stage in wanted
    }
    if training := [
        stage for stage, each in places.items() if each.image == images.of(recipe.runtime, "train")
    ]:
        raise RecipeError(
            f"{', '.join(training)}: runtime.launcher.kind is 'process', so the runner's pod "
            "would have to train. Set it to 'trainer' (Kubeflow Trainer) or 'job' (Indexed Job)."
        )
    most = max(
        places.values(),
        key=lambda each: (each.image != images.of(recipe.runtime, "core"), each.gpus, each.tmp_gib),
    )
    # Preflight runs in it too: a missing key must be a finding, not a pod that never starts.
    own = recipe.runtime.cluster.env_secret
    secrets = tuple(
        replace(s, optional=s.optional or s.name == own)
        for each in places.values()
        for s in each.secrets
    )
    return replace(most, timeout_s=ALL_ATTEMPTS_S, secrets=secrets)


def _heavy(
    image: str, recipe: Recipe, name: str | None, gpus: int, common: dict[str, Any]
) -> TaskPod:
    """Return a pod that serves or trains, by its pool's numbers;
    without a pool, on any node's CPUs."""
    if name is None:
        return TaskPod(
            image=image,
            cpu=("500m", "8"),
            memory=("4Gi", "32Gi"),
            tmp_gib=HEAVY_TMP_GIB,
            shm_gib=2,
            **common,
        )
    pool = recipe.pools[name]
    asked = pods.requests(pool, gpus)
    return TaskPod(
        image=image,
        cpu=(asked["cpu"],) * 2,
        memory=(asked["memory"],) * 2,
        tmp_gib=HEAVY_TMP_GIB,
        pool=name,
        node_selector=pool.node_selector,
        toleration=pool.toleration,
        accelerator=pool.accelerator,
        gpus=gpus,
        shm_gib=pool.shm_gib,
        **common,
    )


def _secrets(recipe: Recipe, stage: Declaration) -> list[Secret]:
    """Return S3 for all stages, `secret_envs` for all but the report, and the endpoints' keys for
    those that ask."""
    cluster = recipe.runtime.cluster
    found = _store_secrets(cluster.s3_secret, recipe.store) if cluster.s3_secret else []
    asks = stage.models(recipe) and recipe.runtime.engines.kind == "kubernetes"
    if asks or (stage == PROMOTE and recipe.promote and recipe.promote.slots):
        found.append(Secret(cluster.engines_secret, {ENGINES_KEY: ENGINES_KEY}, optional=True))
    names = set(recipe.runtime.secret_envs) if stage != REPORT else set()
    if stage.keys:
        names |= set(endpoint_keys(recipe).values())
    if names:
        # Preflight's pod starts without it too, and reports what is missing.
        found.append(
            Secret(
                cluster.env_secret,
                {name: name for name in sorted(names)},
                optional=stage == PREFLIGHT,
            )
        )
    return found


def _store_secrets(name: str, store: StoreAddress) -> list[Secret]:
    found = [
        Secret(name, {key: key for key in S3_KEYS}),
        Secret(name, {key: key for key in (*S3_SETTINGS, SESSION_TOKEN)}, optional=True),
    ]
    named = dict(zip(S3_KEYS, (store.access_key_env, store.secret_key_env), strict=True))
    own = {key: variable for key, variable in named.items() if variable != key}
    if own:  # beside the usual names, by which a recipe is read
        found.insert(1, Secret(name, own))
    if store.session_token_env:
        found.append(Secret(name, {SESSION_TOKEN: store.session_token_env}, optional=True))
    return found
