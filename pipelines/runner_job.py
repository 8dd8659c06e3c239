"""The Job that `--in-cluster` creates, as plain data: one pod runs the whole pipeline, or an
evaluation.

The recipe is an annotation of the pod, which the kubelet writes into a file. So there is one
object, and the right to create Jobs is enough. A pod that is lost, evicted or killed is replaced,
and the new pod continues; a run that failed is not tried again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from moaa.declaration import Declaration
from moaa.kubernetes import names
from moaa.pipelines import tasks
from moaa.placement.pod_spec import CORE_TMP_GIB, KEPT_S, Room, plain, pod_spec
from moaa.recipe.load import Loaded
from moaa.stages.table import REPORT, stages, up_to

CONTAINER: Final = "runner"
COMPONENT: Final = "app.kubernetes.io/component"
RECIPE: Final = "moaa.dev/recipe"
FOLDER, RECIPE_FOLDER = "/work", "/etc/moaa"
REPLACED: Final = 5
"""How many pods may be lost before the run fails."""
GRACE_S: Final = 60
ONE_STREAM: Final = ("sh", "-c", 'exec "$0" "$@" 2>&1')
"""A container's two streams are collected separately, in no fixed order. As one stream, the error
of the failed stage stays the last line."""
FAILED, MISUSED = 1, 2
"""Exit statuses of a run that failed or could not start: another pod would fail too. After an
outside fault (`moaa.errors.OUTSIDE`) a new pod is started, as after a lost one."""


@dataclass(frozen=True, slots=True)
class Work:
    """What the pod does: `moaa COMMAND recipe.yaml OPTIONS`, with room for these stages."""

    command: str
    options: tuple[str, ...]
    stages: Sequence[Declaration]


def of_run(until: str | None = None) -> Work:
    """Return the pipeline, up to this stage if given.
    Raises RecipeError if there is no such stage."""
    if until is None:
        return Work("run", (), stages())
    return Work("run", ("--until", until), up_to(until))


def job(loaded: Loaded, run_id: str, work: Work) -> dict[str, Any]:
    """Return the Job of a run; its name is the run's.

    Raises RecipeError for a recipe that no single pod can run.
    """
    recipe = loaded.recipe
    place = tasks.runner(recipe, [*work.stages, REPORT])
    labels = {**names.work_labels(run_id, CONTAINER), names.CLIENT: "true", COMPONENT: CONTAINER}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": run_id, "labels": labels},
        "spec": {
            "backoffLimit": REPLACED,
            "activeDeadlineSeconds": place.timeout_s,
            "ttlSecondsAfterFinished": KEPT_S,
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": CONTAINER,
                            "operator": "In",
                            "values": [FAILED, MISUSED],
                        },
                    },
                    {
                        "action": "Ignore",
                        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
                    },
                ]
            },
            "template": {
                "metadata": {"labels": labels, "annotations": {RECIPE: loaded.text}},
                "spec": _pod(loaded, place, run_id, work),
            },
        },
    }


def recipe_of(job: dict[str, Any]) -> str:
    """Return the recipe's text in a runner Job."""
    return str(job["spec"]["template"]["metadata"]["annotations"][RECIPE])


def _pod(loaded: Loaded, place: tasks.TaskPod, run_id: str, work: Work) -> dict[str, Any]:
    field = {"fieldPath": f"metadata.annotations['{RECIPE}']"}
    recipe = {"items": [{"path": "recipe.yaml", "fieldRef": field}]}
    file = f"{RECIPE_FOLDER}/recipe.yaml"
    command = [*ONE_STREAM, "moaa", work.command, file, *work.options]
    container = {
        "name": CONTAINER,
        "image": place.image,
        "command": command,
        "workingDir": FOLDER,
        "env": _environment(place, run_id),
        "resources": _resources(place),
        "terminationMessagePolicy": "FallbackToLogsOnError",
    }
    room = Room(
        tmp_gib=place.tmp_gib,
        shm_gib=place.shm_gib,
        node_selector=place.node_selector,
        toleration=place.toleration,
        image_pull_secrets=place.image_pull_secrets,
    )
    return pod_spec(
        container,
        room,
        volumes=[
            (RECIPE_FOLDER, {"name": "recipe", "downwardAPI": recipe}),
            (FOLDER, {"name": "work", "emptyDir": {"sizeLimit": f"{CORE_TMP_GIB}Gi"}}),
        ],
        serviceAccountName=loaded.recipe.runtime.cluster.service_account,
        terminationGracePeriodSeconds=GRACE_S,
    )


def _environment(place: tasks.TaskPod, run_id: str) -> list[dict[str, Any]]:
    variables = {**place.environment, names.RUN_ENV: run_id, "PYTHONUNBUFFERED": "1"}
    secret = {
        variable: {"secretKeyRef": {"name": each.name, "key": key, "optional": each.optional}}
        for each in place.secrets
        for key, variable in each.variables.items()
    }
    return [
        *plain(variables),
        *({"name": name, "valueFrom": source} for name, source in secret.items()),
    ]


def _resources(place: tasks.TaskPod) -> dict[str, dict[str, str]]:
    found = {
        "requests": {"cpu": place.cpu[0], "memory": place.memory[0]},
        "limits": {"cpu": place.cpu[1], "memory": place.memory[1]},
    }
    if place.gpus:
        found["limits"][place.accelerator] = str(place.gpus)
    return found
