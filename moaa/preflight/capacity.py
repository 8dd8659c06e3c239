"""Checks whether the nodes and quotas have room for the largest step of a run.

Arithmetic on Kubernetes' own numbers, without I/O.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from moaa.declaration import Declaration
from moaa.errors import ClusterError
from moaa.placement import pods
from moaa.preflight.finding import Finding
from moaa.recipe.schema import Model, Pool, Recipe

Size = dict[str, float]
"""What a pod requests, or what a node has: {resource: amount}. CPU in cores, memory in bytes."""
UNREADABLE = "correct it: preflight cannot compute with this number"
_LIMITS = re.compile(r"(requests\.|limits\.)?(cpu|memory)")


@dataclass(frozen=True, slots=True)
class Step:
    """Pods of one pool that run at the same time."""

    name: str
    pool: str
    pods: tuple[Size, ...]
    several: bool = False
    """Whether the stage asks several models, which could take turns."""

    def total(self, resource: str) -> float:
        """Return what all pods request of this resource."""
        return sum(pod.get(resource, 0) for pod in self.pods)


def steps(recipe: Recipe, stages: Iterable[Declaration]) -> list[Step]:
    """Return the pods that each stage runs at the same time in each pool.

    They are leased engines, trainings, and the stage's own pod.
    """
    launcher = recipe.runtime.launcher
    found: list[Step] = []
    for stage in stages:
        held: dict[str, list[Size]] = {}
        own = pods.role(recipe, stage)
        if own.pool:
            held.setdefault(own.pool, []).append(_pod(recipe.pools[own.pool], own.gpus))
        leased = _leased(recipe, stage)
        for model in leased:
            pool = recipe.pools[str(model.pool)]
            held.setdefault(str(model.pool), []).extend(
                [_pod(pool, model.tensor_parallel)] * model.replicas
            )
        if stage.trains and launcher.kind != "process" and launcher.pool:
            pool = recipe.pools[launcher.pool]
            ranks = launcher.ranks if pool.gpus and launcher.device != "cpu" else 0
            held.setdefault(launcher.pool, []).extend([_pod(pool, ranks)] * launcher.nodes)
        several = bool(stage.asks(recipe))
        found += [Step(stage.name, name, tuple(size), several) for name, size in held.items()]
    return found


def gpus_held(recipe: Recipe, stages: Iterable[Declaration]) -> dict[str, dict[str, float]]:
    """Return, for each stage that holds GPUs, how many (`gpus`) and what an hour of all of them
    costs (`hour_usd`). Its cost is that price times the hours that it took."""
    found: dict[str, dict[str, float]] = {}
    for step in steps(recipe, stages):
        pool = recipe.pools[step.pool]
        gpus = step.total(pool.accelerator) if pool.gpus else 0
        if gpus:
            price = recipe.plan.gpu_hour_usd if pool.gpu_hour_usd is None else pool.gpu_hour_usd
            own = found.setdefault(step.name, {"gpus": 0.0, "hour_usd": 0.0})
            own["gpus"] += gpus
            own["hour_usd"] += gpus * price
    return found


def _leased(recipe: Recipe, stage: Declaration) -> list[Model]:
    """Return the engines with a pool that a stage leases at once; in turns, only the largest."""
    if recipe.runtime.engines.kind != "kubernetes":
        return []
    models = [recipe.models[name] for name in sorted(stage.asks(recipe))]
    models = [model for model in models if model.pool and not model.endpoint]
    if recipe.runtime.engines.schedule == "by-turns" and models:
        return [max(models, key=lambda model: model.tensor_parallel * model.replicas)]
    return models


def _pod(pool: Pool, gpus: int) -> Size:
    share = max(1, gpus) if pool.gpus else 1
    size = {"cpu": pool.cpus * share, "memory": pool.memory_gib * share * 2**30}
    return {**size, pool.accelerator: float(gpus)} if pool.gpus and gpus else size


def pool_findings(
    recipe: Recipe, held: Sequence[Step], nodes: Sequence[Mapping[str, Any]]
) -> Iterator[Finding]:
    """Yield one finding for each pool: it has room, or the largest step that does not fit."""
    for name, pool in recipe.pools.items():
        mine = [step for step in held if step.pool == name]
        if not mine:
            continue
        usable = [node for node in nodes if takes(node, pool)]
        try:
            sizes = [allocatable(node) for node in usable]
        except ClusterError as error:
            yield Finding("pool", False, f"pool '{name}': {error}", UNREADABLE)
            continue
        have = f"pool '{name}': {len(usable)} of {len(nodes)} nodes can be used"
        if pool.gpus:
            gpus = sum(size.get(pool.accelerator, 0) for size in sizes)
            have += f", with {gpus:g} {pool.accelerator}"
        bad = [step for step in mine if not fits(step.pods, sizes)]
        if not bad:
            yield Finding("pool", True, f"{have}; the largest step fits")
            continue
        worst = max(bad, key=lambda step: step.total(pool.accelerator if pool.gpus else "cpu"))
        yield Finding(
            "pool",
            False,
            f"{have}; {worst.name} needs {_needs(worst, pool.accelerator)}",
            _fix(recipe, name, pool, worst, usable),
        )


def _needs(step: Step, accelerator: str) -> str:
    """Return what a step needs, in words.

    `22 nvidia.com/gpu in pods of 8, 4, 4, 4, 2; the largest asks for 8 nvidia.com/gpu, 64 cores,
    512 GiB`.
    """
    largest = max(step.pods, key=lambda pod: (pod.get(accelerator, 0), pod["cpu"]))
    asks = f"{largest['cpu']:g} cores, {largest['memory'] / 2**30:,.0f} GiB"
    if not step.total(accelerator):
        return f"{len(step.pods)} pods; the largest asks for {asks}"
    parts = ", ".join(
        f"{pod.get(accelerator, 0):g}"
        for pod in sorted(step.pods, key=lambda pod: -pod.get(accelerator, 0))
    )
    total = f"{step.total(accelerator):g} {accelerator}"
    most = f"{largest[accelerator]:g} {accelerator}"
    return f"{total} in pods of {parts}; the largest asks for {most}, {asks}"


def _fix(recipe: Recipe, name: str, pool: Pool, step: Step, usable: Sequence[object]) -> str:
    if not usable:
        return f"correct pools.{name}.node_selector and toleration, or add such nodes"
    by_turns = step.several and recipe.runtime.engines.schedule != "by-turns"
    turns = ""
    if by_turns and len(step.pods) > 1:
        turns = ", or set runtime.engines.schedule to 'by-turns'"
    return f"add nodes, or correct pools.{name} (gpus, cpus, memory_gib){turns}"


def takes(node: Mapping[str, Any], pool: Pool) -> bool:
    """Return whether pods of the pool may run on the node: labels, taints, not cordoned."""
    labels = node["metadata"].get("labels") or {}
    spec = node.get("spec") or {}
    taints = [
        taint
        for taint in spec.get("taints") or []
        if taint["effect"] in ("NoSchedule", "NoExecute")
    ]
    selected = all(labels.get(key) == value for key, value in pool.node_selector.items())
    return (
        selected
        and not spec.get("unschedulable")
        and all(taint["key"] == pool.toleration for taint in taints)
    )


def allocatable(node: Mapping[str, Any]) -> Size:
    """Return what pods can use of this node. Raises ClusterError if a quantity is unreadable."""
    name = node["metadata"].get("name", "?")
    sizes = (node.get("status") or {}).get("allocatable", {})
    return {
        resource: float(quantity(text, f"node '{name}', allocatable {resource}"))
        for resource, text in sizes.items()
    }


def fits(pods: Iterable[Size], nodes: Iterable[Size]) -> bool:
    """Return whether the pods fit on the empty nodes.

    Each pod goes to the first node with room, the largest pod first.
    """
    free = [dict(node) for node in nodes]
    for pod in sorted(pods, key=lambda size: sorted(size.values(), reverse=True), reverse=True):
        for node in free:
            if all(node.get(resource, 0) >= amount for resource, amount in pod.items()):
                for resource, amount in pod.items():
                    node[resource] -= amount
                break
        else:
            return False
    return True


def quota_findings(
    held: Sequence[Step], quotas: Sequence[Mapping[str, Any]], has_defaults: bool, *, kubeflow: bool
) -> Iterator[Finding]:
    """Yield one finding for each quota: does it have room for the largest step?

    `kubeflow`: Kubeflow's own containers, which name no limits, must pass the quota too.
    """
    for quota in quotas:
        name, hard = quota["metadata"]["name"], quota["spec"].get("hard") or {}
        try:
            short = _short(held, quota)
        except ClusterError as error:
            yield Finding("quota", False, str(error), UNREADABLE)
            continue
        if short:
            yield Finding(
                "quota",
                False,
                f"ResourceQuota '{name}': {'; '.join(short)}",
                "have it raised, or ask for less (pools)",
            )
        elif kubeflow and not has_defaults and any(map(_LIMITS.fullmatch, hard)):
            yield Finding(
                "quota",
                False,
                f"ResourceQuota '{name}' limits CPU or memory, and no LimitRange gives defaults: "
                "Kubeflow's own containers name no limits, so they are refused",
                "add a LimitRange with default limits (the moaa-platform chart's `quota` makes "
                "both)",
            )
        else:
            yield Finding("quota", True, f"ResourceQuota '{name}' leaves room for the largest step")


def _short(held: Sequence[Step], quota: Mapping[str, Any]) -> list[str]:
    """Return one sentence for each resource of which the quota has too little."""
    name, used = quota["metadata"]["name"], (quota.get("status") or {}).get("used") or {}
    short = []
    for resource, hard in (quota["spec"].get("hard") or {}).items():
        where = f"ResourceQuota '{name}', {resource}"
        left = float(quantity(hard, where) - quantity(used.get(resource, "0"), where))
        plain = re.sub(r"^(requests|limits)\.", "", resource)
        step = max(held, key=lambda each: each.total(plain), default=None)
        if step and step.total(plain) > left:
            short.append(
                f"{resource}: {_amount(left, plain)} left, {step.name} needs "
                f"{_amount(step.total(plain), plain)}"
            )
    return short


def quantity(text: str, where: str) -> Decimal:
    """Return a Kubernetes quantity as a number: `500m` is 0.5, `2Gi` is 2147483648.

    `where` is used in the ClusterError for a text that is not a quantity.
    """
    from kubernetes.utils.quantity import parse_quantity  # heavy

    try:
        return Decimal(parse_quantity(text))
    except ValueError:
        raise ClusterError(f"{where}: '{text}' is not a Kubernetes quantity") from None


def _amount(value: float, resource: str) -> str:
    return f"{value / 2**30:,.0f} GiB" if resource == "memory" else f"{value:g}"
