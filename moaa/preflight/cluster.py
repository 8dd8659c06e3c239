"""Checks what a run needs from the cluster: objects, rights, room and clocks.

What this account may not see is reported as not checked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

from moaa.declaration import Declaration
from moaa.errors import ClusterError, RecipeError
from moaa.kubernetes import names
from moaa.kubernetes.api import Cluster
from moaa.kubernetes.discovery import knows
from moaa.kubernetes.errors import Forbidden, NotFound
from moaa.kubernetes.kinds import DEPLOYMENTS, JOBS, TRAIN_JOBS, Kind, Object
from moaa.placement import helm_values
from moaa.preflight import capacity, clocks, rights
from moaa.preflight.finding import Finding, unseen
from moaa.preflight.kinds import ACCOUNTS, LIMIT_RANGES, NODES, QUOTAS, RUNTIMES, SECRETS
from moaa.recipe.schema import Recipe
from moaa.recipe.secrets import S3_KEYS, endpoint_keys
from moaa.store import Store

T = TypeVar("T")
PULL = "kubernetes.io/dockerconfigjson"
SERVING = (
    "moaa recipe helm-values RECIPE | helm upgrade --install ensemble helm/moaa-serving -n {} -f -"
)
PLATFORM = (
    "moaa recipe helm-values RECIPE --chart platform | "
    "helm upgrade --install platform helm/moaa-platform -n {} -f -"
)


def wanted(recipe: Recipe) -> bool:
    """Return whether the run leases engines or starts trainings on a cluster."""
    return recipe.runtime.engines.kind == "kubernetes" or recipe.runtime.launcher.kind != "process"


def findings(
    recipe: Recipe,
    store: Store,
    cluster: Cluster,
    stages: Sequence[Declaration],
    *,
    kubeflow: bool,
) -> Iterator[Finding]:
    """Yield all findings; only one if the cluster cannot be reached.

    `kubeflow`: this is a task of a compiled pipeline.
    """
    try:
        cluster.date()
    except ClusterError as error:
        fix = "correct KUBECONFIG and its context, or connect to the cluster's network"
        yield Finding("cluster", False, str(error), fix)
        return
    yield Finding("cluster", True, f"{cluster.host} answers; namespace '{cluster.namespace}'")
    trainings = None
    if recipe.runtime.launcher.kind != "process":
        trainings, found = _trainings(recipe, cluster)
        yield from found
    if recipe.runtime.engines.kind == "kubernetes":
        yield from _ensemble(recipe, cluster)
    yield from _account(recipe, cluster)
    yield from _secrets(recipe, cluster)
    yield from rights.findings(recipe, cluster, trainings)
    yield from _room(recipe, cluster, stages, kubeflow)
    s3 = {"S3": partial(clocks.of_url, store.endpoint_url or "https://s3.amazonaws.com")}
    yield from clocks.findings({"Kubernetes": lambda: clocks.of_date(cluster.date()), **s3})


def _trainings(recipe: Recipe, cluster: Cluster) -> tuple[Kind, list[Finding]]:
    """Return the kind of object that trainings will be, and the findings about it."""
    launcher = recipe.runtime.launcher
    if launcher.kind == "job":
        detail = "trainings run as Indexed Jobs (runtime.launcher.kind)"
        return JOBS, [Finding("training", True, detail)]
    if not knows(cluster, TRAIN_JOBS):
        detail = "Kubeflow Trainer is not installed: trainings run as Indexed Jobs"
        return JOBS, [Finding("training", True, detail)]
    what = f"TrainingRuntime '{names.runtime(launcher.pool)}'"
    runtime = partial(cluster.get, RUNTIMES, names.runtime(launcher.pool))
    return TRAIN_JOBS, [
        _of_platform(cluster, "training", what, runtime, f"trainings run as TrainJobs of {what}")
    ]


def _ensemble(recipe: Recipe, cluster: Cluster) -> Iterator[Finding]:
    deployments = _look(
        "ensemble", "Deployments", lambda: cluster.list(DEPLOYMENTS, names.MODEL), rights.FIX
    )
    if isinstance(deployments, Finding):
        yield deployments
        return
    differ = helm_values.differences(recipe, deployments)
    for sentence in differ:
        yield Finding("ensemble", False, sentence, SERVING.format(cluster.namespace))
    if not differ:
        models = ", ".join(helm_values.served(recipe)) or "none is needed"
        yield Finding("ensemble", True, f"the Deployments match the recipe ({models})")


def _account(recipe: Recipe, cluster: Cluster) -> Iterator[Finding]:
    name = recipe.runtime.cluster.service_account
    if cluster.inside:  # this pod runs under it
        return
    what, account = f"ServiceAccount '{name}'", partial(cluster.get, ACCOUNTS, name)
    yield _of_platform(cluster, "account", what, account, f"{what} exists")


def _of_platform(
    cluster: Cluster, check: str, what: str, get: Callable[[], object], good: str
) -> Finding:
    """Return the finding about an object that the platform's chart makes."""
    found = _look(check, what, get, PLATFORM.format(cluster.namespace))
    return found if isinstance(found, Finding) else Finding(check, True, good)


def _secrets(recipe: Recipe, cluster: Cluster) -> Iterator[Finding]:
    """Check the Secrets that pods use, and their keys. Values are never read."""
    place = recipe.runtime.cluster
    variables = {*recipe.runtime.secret_envs, *endpoint_keys(recipe).values()}
    for name, keys in ((place.s3_secret, S3_KEYS), (place.env_secret, tuple(sorted(variables)))):
        if name and keys:
            literals = " ".join(f"--from-literal={key}=…" for key in keys)
            fix = f"kubectl -n {cluster.namespace} create secret generic {name} {literals}"
            yield _secret(cluster, name, fix, partial(_lacking, keys))
    for name in place.image_pull_secrets:
        fix = (
            f"kubectl -n {cluster.namespace} create secret docker-registry {name} --docker-server=…"
        )
        yield _secret(cluster, name, fix, _wrong_type)


def _secret(cluster: Cluster, name: str, fix: str, wrong: Callable[[Object], str]) -> Finding:
    found = _look("secret", f"Secret '{name}'", lambda: cluster.get(SECRETS, name), fix)
    if isinstance(found, Finding):
        return found
    problem = wrong(found)
    return Finding(
        "secret", not problem, f"Secret '{name}' {problem or 'exists with its keys'}", fix
    )


def _lacking(keys: tuple[str, ...], secret: Object) -> str:
    missing = [key for key in keys if not (secret.get("data") or {}).get(key)]
    return f"lacks {', '.join(missing)}" if missing else ""


def _wrong_type(secret: Object) -> str:
    return "" if secret.get("type") == PULL else f"is of type {secret.get('type')}, not {PULL}"


def _room(
    recipe: Recipe, cluster: Cluster, stages: Sequence[Declaration], kubeflow: bool
) -> Iterator[Finding]:
    try:
        steps = capacity.steps(recipe, stages)
    except RecipeError as error:
        yield Finding("pool", False, str(error), "correct the recipe")
        return
    if steps:
        nodes = _look("pool", "the nodes", lambda: cluster.list(NODES), "")
        if isinstance(nodes, Finding):
            yield nodes
        else:
            yield from capacity.pool_findings(recipe, steps, nodes)
    quotas = _look(
        "quota", "quotas", lambda: (cluster.list(QUOTAS), cluster.list(LIMIT_RANGES)), ""
    )
    if isinstance(quotas, Finding):
        yield quotas
        return
    has_defaults = any(
        limit.get("default") for each in quotas[1] for limit in each["spec"]["limits"]
    )
    yield from capacity.quota_findings(steps, quotas[0], has_defaults, kubeflow=kubeflow)


def _look(check: str, what: str, read: Callable[[], T], fix: str) -> T | Finding:
    """Return what `read` returns; or a finding: it is missing, or this account may not see it."""
    try:
        return read()
    except NotFound as error:
        return Finding(check, False, str(error), fix)
    except Forbidden:
        detail = (
            f"{what}: this account may not read it. Run `moaa preflight RECIPE` as one that may"
        )
        return unseen(check, detail)
    except ClusterError as error:
        return Finding(check, False, str(error), fix or "try again when the cluster answers")
