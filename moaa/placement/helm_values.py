"""Values of the Helm charts for a recipe, and how a cluster's ensemble differs from the recipe.

    moaa recipe helm-values recipe.yaml | helm upgrade --install ensemble helm/moaa-serving -f -

Preflight uses `differences(recipe, deployments)`, which is empty if the cluster serves what the
recipe needs.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from moaa.errors import RecipeError
from moaa.kubernetes import names
from moaa.placement import mixture_values
from moaa.recipe.engine_args import SPECULATION, speculates
from moaa.recipe.model_size import weights_gib
from moaa.recipe.schema import Model, Pool, Recipe

SPEC: Final = "moaa.dev/spec"
"""Annotation of a serving Deployment: what it serves and how, as JSON (see `spec`)."""

RELEASE: Final = "ensemble"
"""The release name of moaa-serving in all our commands: the Deployments' names begin with it."""

CPU_POOL: Final = Pool(gpus=0, cpus=2, memory_gib=8, shm_gib=2)
"""For models without a pool: the cores of any node."""

_LOCAL = re.compile(r"^[./~]|\.gguf$")


def serving(recipe: Recipe) -> dict[str, Any]:
    """Return the values of moaa-serving: the models without an endpoint that the recipe needs."""
    models = served(recipe)
    by_dns = {name: dns for dns, name in names.by_dns(models).items()}
    images = recipe.runtime.cluster.images
    chosen = {
        key: image for key, image in (("serve", images.serve), ("core", images.core)) if image
    }
    return {
        **({"images": chosen} if chosen else {}),
        **_secrets(recipe),
        "models": [_model(by_dns[name], name, model, recipe) for name, model in models.items()],
        "pools": {
            name: _nodes(pool) | _size(pool)
            for name, pool in _pools(recipe, models.values()).items()
        },
        **mixture_values.of(recipe),
        **_promoted(recipe),
    }


def platform(recipe: Recipe) -> dict[str, Any]:
    """Return the values of moaa-platform: where the recipe trains."""
    cluster, launcher = recipe.runtime.cluster, recipe.runtime.launcher
    images = {
        key: image
        for key, image in (("core", cluster.images.core), ("train", cluster.images.train))
        if image
    }
    pool = {launcher.pool: recipe.pools[launcher.pool]} if launcher.pool else {"default": CPU_POOL}
    engines = sorted(f"{RELEASE}-{dns}" for dns in names.by_dns(served(recipe)))
    return {
        **({"images": images} if images else {}),
        **_secrets(recipe),
        "env": {"secretName": cluster.env_secret},
        "serviceAccounts": {"pipeline": cluster.service_account},
        **({"pipeline": {"deployments": engines}} if engines else {}),
        "pools": {
            _checked_name(name): _nodes(each) | {"shmGib": _number(each.shm_gib)}
            for name, each in pool.items()
        },
        "trainer": {"enabled": launcher.kind == "trainer"},
        "admissionPolicy": {
            "trainEnv": sorted(set(recipe.runtime.secret_envs)),
            "roots": [f"{recipe.store.root.rstrip('/')}/"],
            **({"runnerImages": [cluster.images.serve]} if cluster.images.serve else {}),
        },
    }


def served(recipe: Recipe) -> dict[str, Model]:
    """Return the models that must be served on the cluster, in the recipe's order."""
    needed = (
        {recipe.target}
        | recipe.generating
        | recipe.label.models_of(recipe.label.labeller)
        | recipe.evaluation_models
    )
    return {
        name: model
        for name, model in recipe.models.items()
        if name in needed and not model.endpoint
    }


def spec(name: str, model: Model) -> dict[str, Any]:
    """Return everything that decides a model's answers and its size on the cluster, in the form of
    the chart's annotation SPEC."""
    return {
        **({"task": model.task} if model.task != "chat" else {}),
        "source": model.source,
        "revision": model.revision or "",
        "served_name": name,
        "dtype": model.dtype,
        "max_model_len": model.max_model_len or 0,
        "quantization": model.quantization or "",
        "tensor_parallel": model.tensor_parallel,
        "engine_args": model.arguments,
    }


def differences(recipe: Recipe, deployments: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each model that is missing or differs; empty if the cluster serves the
    recipe.

    `deployments`: the namespace's Deployments with the label moaa.dev/model, as returned by the
    API.
    """
    models = served(recipe)
    found: dict[str, list[Mapping[str, Any]]] = {}
    for deployment in deployments:
        found.setdefault(deployment["metadata"].get("labels", {}).get(names.MODEL, ""), []).append(
            deployment
        )
    lines: list[str] = []
    for dns, name in names.by_dns(models).items():
        there = found.get(dns, [])
        if not there:
            lines.append(f"model '{name}': no Deployment is labelled {names.MODEL}={dns}")
        elif len(there) > 1:
            which = ", ".join(each["metadata"]["name"] for each in there)
            lines.append(
                f"model '{name}': {len(there)} Deployments are labelled {names.MODEL}={dns} "
                f"({which}); there must be exactly one"
            )
        else:
            lines += _differences_of(name, spec(name, models[name]), there[0]["metadata"])
    return lines


def _differences_of(name: str, wanted: dict[str, Any], metadata: Mapping[str, Any]) -> list[str]:
    where = f"model '{name}' (Deployment {metadata['name']})"
    text = (metadata.get("annotations") or {}).get(SPEC)
    try:
        served_spec = json.loads(text or "")
        differing = {
            key: served_spec.get(key)
            for key in (*wanted, *({"task"} - wanted.keys()))
            if served_spec.get(key) != wanted.get(key)
        }
    except (ValueError, AttributeError):
        return [
            f"{where}: its annotation {SPEC} does not say what it serves; moaa-serving writes it"
        ]
    if not differing:
        return []
    parts = [
        f"{key} is {_text(value)}, the recipe says {_text(wanted.get(key))}"
        for key, value in differing.items()
    ]
    if speculates(served_spec.get("engine_args") or []):
        parts.append(f"{SPECULATION} (speculativeTokens: serve stages by another Deployment)")
    return [f"{where}: {'; '.join(parts)}"]


def _text(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False) if value not in ("", 0, None, []) else "not given"


def _model(dns: str, name: str, model: Model, recipe: Recipe) -> dict[str, Any]:
    if _LOCAL.search(model.source) and not model.source.startswith(("s3://", "package:")):
        raise RecipeError(
            f"models.{name}.source is '{model.source}', a path on this machine, which a cluster "
            "cannot read. Upload it to S3 and give its s3:// address, or give a hub id."
        )
    values: dict[str, Any] = {"name": dns, "source": model.source}
    optional = {
        "revision": model.revision,
        "servedName": name if name != dns else None,
        "task": model.task if model.task != "chat" else None,
        "pool": _checked_name(model.pool) if model.pool else None,
        "tensorParallelSize": model.tensor_parallel if model.tensor_parallel != 1 else None,
        "dtype": model.dtype if model.dtype != "bfloat16" else None,
        "maxModelLen": model.max_model_len,
        "quantization": model.quantization,
        "maxNumSeqs": recipe.runtime.engines.max_num_seqs,
        "extraArgs": model.arguments or None,
        "leasedReplicas": model.replicas if model.replicas != 1 else None,
        "sizeGib": weights_gib(model.source),
    }
    values |= {key: value for key, value in optional.items() if value is not None}
    if not (recipe.pools[model.pool] if model.pool else CPU_POOL).gpus:
        values["kvCacheGib"] = _number(recipe.runtime.engines.kv_cache_gib)
    return values


def _promoted(recipe: Recipe) -> dict[str, Any]:
    """Return the two slots in `promote.slots`, each of the target's size; empty without them. A
    trained model is not quantized, even if the target was."""
    if recipe.promote is None or recipe.promote.slots is None:
        return {}
    name = recipe.promote.slots
    size = _model(name, name, recipe.models[recipe.target], recipe)
    what = {
        key: value
        for key, value in size.items()
        if key not in ("name", "source", "revision", "quantization", "leasedReplicas")
    }
    pointers = f"{recipe.store.root.rstrip('/')}/pointers/{name}"
    return {"promoted": [{"name": name, "pointers": pointers, **what}]}


def _secrets(recipe: Recipe) -> dict[str, Any]:
    cluster = recipe.runtime.cluster
    pull = (
        {"imagePullSecrets": list(cluster.image_pull_secrets)} if cluster.image_pull_secrets else {}
    )
    engines = {"apiKey": {"secretName": cluster.engines_secret}}
    return {**pull, "s3": {"secretName": cluster.s3_secret or ""}, **engines}


def _pools(recipe: Recipe, models: Iterable[Model]) -> dict[str, Pool]:
    used = dict.fromkeys(model.pool for model in models)
    return {
        _checked_name(name) if name else "default": recipe.pools[name] if name else CPU_POOL
        for name in used
    }


def _checked_name(pool: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?", pool):
        raise RecipeError(
            f"the pool '{pool}' cannot be part of a Kubernetes name: use at most 40 small letters, "
            "digits and '-'. Rename it."
        )
    return pool


def _nodes(pool: Pool) -> dict[str, Any]:
    tolerations = [{"key": pool.toleration, "operator": "Exists"}] if pool.toleration else []
    given = {"nodeSelector": dict(pool.node_selector), "tolerations": tolerations}
    return {key: value for key, value in given.items() if value}


def _size(pool: Pool) -> dict[str, Any]:
    device = {"device": "cuda", "accelerator": pool.accelerator} if pool.gpus else {"device": "cpu"}
    return {
        **device,
        "cpus": _number(pool.cpus),
        "memoryGib": _number(pool.memory_gib),
        "shmGib": _number(pool.shm_gib),
    }


def _number(value: float) -> float:
    return int(value) if value == int(value) else value
