"""The alignment pipeline: prompts -> generate -> sft -> sample -> label -> dpo -> evaluate, and a
report whatever happens."""

from collections.abc import Callable

from kfp import dsl
from kfp.dsl import PipelineTask
from kfp.dsl.base_component import BaseComponent

from components.dpo.component import dpo
from components.evaluate.component import evaluate
from components.generate.component import generate
from components.label.component import label
from components.preflight.component import preflight
from components.prompts.component import prompts
from components.report.component import report
from components.sample.component import sample
from components.sft.component import sft

STAGES = ("preflight", "prompts", "generate", "sft", "sample", "label", "dpo", "evaluate")


def up_to(until: str) -> tuple[str, ...]:
    """The stages of a run that ends with this one."""
    return STAGES[: STAGES.index(until) + 1]


def build(
    recipe: str,
    until: str = STAGES[-1],
    run_id: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER,
    settle: Callable[[str, PipelineTask], PipelineTask] = lambda stage, task: task,
    baked: str = "",
) -> BaseComponent:
    """The pipeline up to and with stage `until`; its one parameter is the recipe, `recipe` unless
    another is given.

    `run_id` names the run's records on S3: the Kubeflow run's own id unless given. `settle` gives
    each task its place on a cluster, as far as the recipe that was compiled decides it; `baked` is
    what that was, for preflight to compare.
    """

    @dsl.pipeline(
        name="moaa-align",
        description="Mixture of Agents Alignment: SFT on a mixture's answers, DPO on its "
        "judgements.",
    )
    def align(recipe: str = recipe) -> None:
        with dsl.ExitHandler(settle("report", report(recipe=recipe, run_id=run_id)), name="run"):
            _stages(recipe, run_id, baked, STAGES.index(until), settle)

    return align


def _stages(
    recipe: str,
    run_id: str,
    baked: str,
    last: int,
    settle: Callable[[str, PipelineTask], PipelineTask],
) -> None:
    """Tasks in the order of STAGES, up to and with number `last`."""
    common = {"recipe": recipe, "run_id": run_id}

    checked = settle("preflight", preflight(**common, baked=baked))
    if last < 1:
        return
    asked = settle("prompts", prompts(**common).after(checked))
    if last < 2:
        return
    written = settle("generate", generate(**common, prompts=asked.outputs["prompts"]))
    if last < 3:
        return
    tuned = settle("sft", sft(**common, data=written.outputs["data"]))
    if last < 4:
        return
    sampled = settle(
        "sample", sample(**common, prompts=asked.outputs["prompts"], model=tuned.outputs["model"])
    )
    if last < 5:
        return
    labelled = settle("label", label(**common, samples=sampled.outputs["samples"]))
    if last < 6:
        return
    aligned = settle(
        "dpo",
        dpo(**common, preferences=labelled.outputs["preferences"], sft=tuned.outputs["model"]),
    )
    if last < 7:
        return
    scored = {
        "prompts": asked.outputs["prompts"],
        "sft": tuned.outputs["model"],
        "dpo": aligned.outputs["model"],
    }
    settle("evaluate", evaluate(**common, **scored))
