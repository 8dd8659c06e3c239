"""The alignment pipeline as Kubeflow sees it: a task for each declared stage, and a report whatever
happens."""

from collections.abc import Callable, Sequence
from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask
from kfp.dsl.base_component import BaseComponent

from moaa.components import component
from moaa.declaration import Declaration
from moaa.stages.table import PREFLIGHT, REPORT

Configure = Callable[[Declaration, PipelineTask], PipelineTask]
"""Sets the pod of a stage's task, and returns the task."""


def build(
    recipe: str,
    stages: Sequence[Declaration],
    run_id: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    configure: Configure = lambda stage, task: task,
    compiled_from: str = "",
) -> BaseComponent:
    """The pipeline of these stages.

    Its parameters are the recipe (`recipe` unless another is given) and `overrides`, a JSON object
    that replaces values of the recipe by their paths. Kubeflow's UI edits that object and shows it
    beside those of other runs.

    `run_id` names the run's records on S3: the id of the Kubeflow run unless given.
    `compiled_from`: what the pods took from the recipe that was compiled, for preflight to compare.
    """

    @dsl.pipeline(
        name="moaa-align",
        description="Mixture of Agents Alignment: SFT on a mixture's answers, "
        "DPO on its judgements.",
    )
    def align(recipe: str = recipe, overrides: dict[str, Any] = {}) -> None:  # noqa: B006
        common = {"recipe": recipe, "overrides": overrides, "run_id": run_id}
        with dsl.ExitHandler(configure(REPORT, component(REPORT)(**common)), name="align"):
            tasks: dict[str, PipelineTask] = {}
            for stage in stages:
                own = {"compiled_from": compiled_from} if stage == PREFLIGHT else {}
                task = component(stage)(**common, **own, **_inputs(stage, tasks))
                if not stage.inputs and PREFLIGHT.name in tasks:
                    task.after(tasks[PREFLIGHT.name])
                tasks[stage.name] = configure(stage, task)

    return align


def _inputs(stage: Declaration, tasks: dict[str, PipelineTask]) -> dict[str, object]:
    """The outputs of earlier tasks, by the parameters of the stage's component."""
    found = {}
    for parameter, source in stage.inputs.items():
        name, _, output = source.partition(".")
        found[parameter] = tasks[name].outputs[output]
    return found
