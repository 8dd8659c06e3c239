"""The pipeline as YAML for Kubeflow: each task with its pod, the recipe as a parameter."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moaa.declaration import Declaration
from moaa.errors import RecipeError
from moaa.kubernetes import names
from moaa.pipelines import tasks
from moaa.placement import compiled
from moaa.recipe import read
from moaa.recipe.addresses import dotted
from moaa.recipe.load import Loaded
from moaa.recipe.next_round import planned
from moaa.recipe.schema import Recipe
from moaa.stages.table import GATE, PREFLIGHT, STAGES_ENV, of_recipe

if TYPE_CHECKING:
    from kfp.dsl import PipelineTask

    from moaa.pipelines.align import Configure

EXPANDED = re.compile(
    r"\{\{\s*(=|\$|workflow\.|inputs|pod\.|retries|tasks|outputs)[^}]*\}\}|\$\([A-Za-z_][\w.-]*\)|\$\$"
    r"|\[\[(RunUUID|Index|ScheduledTime|CurrentTime)\b"
)
"""Texts that Argo, Kubeflow or the kubelet would replace in a parameter:
they would not arrive unchanged."""
_WIDE = re.compile(r"[^\x00-\uffff]")
"""Characters beyond the Basic Multilingual Plane, which Kubeflow's database cannot store."""


def compile_recipe(
    loaded: Loaded,
    target: Path,
    until: str | None = None,
) -> None:
    """Write the pipeline with the resolved recipe as its default to `target`.

    `until`: its last stage; default: all of the recipe. Raises RecipeError for text that the
    backend would change, and for pods that no node could hold.
    """
    write(loaded, default_of(loaded), target, of_recipe(loaded.recipe, until))


def write(loaded: Loaded, default: str, target: Path, run: Sequence[Declaration]) -> None:
    """Write the pipeline of a recipe with the stages of `run`.

    `default` is the value of its parameter if a run gives none: the recipe's text or its address.
    """
    from kfp import compiler

    from moaa.pipelines.align import build

    target.parent.mkdir(parents=True, exist_ok=True)
    fields = compiled.fields(loaded.recipe, of_recipe(loaded.recipe))
    compiled_from = json.dumps(fields, ensure_ascii=False, sort_keys=True)
    # It is passed as text even if the recipe itself is an address.
    refuse_expanded(compiled_from, f"{loaded.recipe.name}: what its pods are to be")
    configure = task_configurer(loaded.recipe, run)
    rounds = loaded.recipe.rounds.n if GATE in run else 1
    pipeline = build(default, run, configure=configure, compiled_from=compiled_from, rounds=rounds)
    compiler.Compiler().compile(pipeline, str(target))


def default_of(loaded: Loaded) -> str:
    """Return the resolved recipe as a parameter's default.

    Raises RecipeError for text that Kubeflow would change.
    """
    given = read.read(loaded.text, loaded.recipe.name, [])
    for path, each in read.places(given):
        if isinstance(each.value, str):
            refuse_expanded(read.one_line(each.value), f"{loaded.recipe.name}: {dotted(path)}")
    # On one line (JSON is YAML): kfp writes defaults unchanged into the YAML's head, and a second
    # line would leave the comment.
    text = read.one_line(read.plain(given))
    refuse_expanded(text, loaded.recipe.name)
    return text


def task_configurer(recipe: Recipe, run: Sequence[Declaration]) -> Configure:
    """Return the function that sets each task's pod, in all rounds,
    and passes the run's stages to preflight."""

    recipes = planned(recipe)

    def configure(stage: Declaration, task: PipelineTask, number: int) -> PipelineTask:
        if stage == PREFLIGHT and tuple(run) != of_recipe(recipe):
            task.set_env_variable(STAGES_ENV, ",".join(each.name for each in run))
        if number > 1:
            task.set_display_name(f"{stage.name} of round {number}")
        return apply(tasks.place(recipes[number - 1], stage), stage, task)

    return configure


def apply(place: tasks.TaskPod, stage: Declaration, task: PipelineTask) -> PipelineTask:
    """Set everything about the task's pod; return the task."""
    from kfp import kubernetes

    task.set_container_image(place.image)
    task.set_caching_options(place.cached)
    task.set_cpu_request(place.cpu[0]).set_cpu_limit(place.cpu[1])
    task.set_memory_request(place.memory[0]).set_memory_limit(place.memory[1])
    if place.gpus:
        task.set_accelerator_type(place.accelerator).set_accelerator_limit(place.gpus)
    task.set_retry(
        tasks.RETRIES, f"{tasks.BACKOFF_S}s", tasks.BACKOFF_FACTOR, f"{tasks.ALL_ATTEMPTS_S}s"
    )
    for name, value in place.environment.items():
        task.set_env_variable(name, value)

    kubernetes.set_timeout(task, place.timeout_s)
    kubernetes.set_security_context(task, run_as_non_root=True)
    kubernetes.empty_dir_mount(task, "tmp", "/tmp", size_limit=f"{place.tmp_gib}Gi")
    if place.shm_gib:
        kubernetes.empty_dir_mount(
            task, "shm", "/dev/shm", medium="Memory", size_limit=f"{place.shm_gib:g}Gi"
        )
    for secret in place.secrets:
        kubernetes.use_secret_as_env(task, secret.name, secret.variables, optional=secret.optional)
    if place.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(place.image_pull_secrets))
    for key, value in place.node_selector.items():
        kubernetes.add_node_selector(task, key, value)
    if place.toleration:
        kubernetes.add_toleration(task, place.toleration, "Exists")
    for label, text in {
        names.PART_OF: names.OURS,
        names.STAGE: stage.name,
        names.CLIENT: "true",
    }.items():
        kubernetes.add_pod_label(task, label, text)
    return task


def refuse_expanded(text: str, where: str) -> None:
    """Check the text. Raises RecipeError if Kubeflow would change it; `where`: its field."""
    if found := EXPANDED.search(text) or _WIDE.search(text):
        raise RecipeError(
            f"{where}: {found.group()!r} would be replaced or refused by Kubeflow. "
            "Write it in another way, or submit the run by `moaa submit`: it "
            "passes the recipe's address."
        )
