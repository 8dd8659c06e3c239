"""The alignment pipeline for Kubeflow: a task for each declared stage, and a report in any case."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from kfp import dsl
from kfp.dsl import PipelineTask
from kfp.dsl.base_component import BaseComponent

from moaa.components import component
from moaa.declaration import Declaration
from moaa.stages.table import GATE, PREFLIGHT, REPORT

Configure = Callable[[Declaration, PipelineTask, int], PipelineTask]
"""Sets the pod of a stage's task in a round, and returns the task."""
WON: Final = "promote"
"""The verdict of the gate after which another round follows."""


def build(
    recipe: str,
    stages: Sequence[Declaration],
    run_id: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    configure: Configure = lambda stage, task, number: task,
    compiled_from: str = "",
    rounds: int = 1,
) -> BaseComponent:
    """Return the pipeline of these stages.

    Its parameters are the recipe (`recipe` unless another is given) and `overrides`, a JSON object
    that replaces values of the recipe by their paths. Kubeflow's UI edits that object and shows it
    next to those of other runs.

    `run_id` names the run's records on S3: the id of the Kubeflow run unless given.
    `compiled_from`: what the pods took from the recipe that was compiled, for preflight to compare.
    `rounds`: the most rounds, each inside a condition on the gate of the round before.
    """

    @dsl.pipeline(
        name="moaa-align",
        description="Mixture of Agents Alignment: SFT on a mixture's answers, "
        "DPO on its judgements.",
    )
    def align(recipe: str = recipe, overrides: dict[str, Any] = {}) -> None:  # noqa: B006
        def add(number: int, recipe: Any, overrides: Any) -> None:
            """Add a round, and inside its condition the rounds after it."""
            common = {"recipe": recipe, "overrides": overrides, "run_id": run_id}
            tasks: dict[str, PipelineTask] = {}
            for stage in stages:
                if stage == PREFLIGHT and number > 1:
                    continue
                own = {"compiled_from": compiled_from} if stage == PREFLIGHT else {}
                task = component(stage)(**common, **own, **_inputs(stage, tasks))
                if not stage.inputs and PREFLIGHT.name in tasks:
                    task.after(tasks[PREFLIGHT.name])
                tasks[stage.name] = configure(stage, task, number)
            if number < rounds:
                decided = tasks[GATE.name].outputs
                with dsl.If(decided["verdict"] == WON, name=f"round-{number + 1}"):
                    # The recipe of a later round has the overrides in it.
                    add(number + 1, decided["next_recipe"], {})

        last = component(REPORT)(recipe=recipe, overrides=overrides, run_id=run_id)
        with dsl.ExitHandler(configure(REPORT, last, 1), name="align"):
            add(1, recipe, overrides)

    return align


def _inputs(stage: Declaration, tasks: dict[str, PipelineTask]) -> dict[str, object]:
    """Return the outputs of earlier tasks, by the parameters of the stage's component."""
    found = {}
    for parameter, source in stage.inputs.items():
        name, _, output = source.partition(".")
        if parameter in stage.optional and name not in tasks:
            continue
        found[parameter] = tasks[name].outputs[output]
    return found
