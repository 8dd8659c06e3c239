"""The alignment pipeline: prompts -> generate -> sft -> sample -> label -> dpo -> evaluate, and a report whatever happens."""

from kfp import dsl
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


def build(recipe: str, until: str = STAGES[-1], run_id: str = dsl.PIPELINE_JOB_ID_PLACEHOLDER) -> BaseComponent:
    """The pipeline up to and with stage `until`; its one parameter is the recipe, `recipe` unless another is given.

    `run_id` names the run's records on S3: the Kubeflow run's own id unless given.
    """

    @dsl.pipeline(
        name="moaa-align", description="Mixture of Agents Alignment: SFT on a mixture's answers, DPO on its judgements."
    )
    def align(recipe: str = recipe) -> None:
        made = report(recipe=recipe, run_id=run_id)
        made.set_caching_options(False)
        with dsl.ExitHandler(made, name="run"):
            _stages(recipe, run_id, STAGES.index(until))

    return align


def _stages(recipe: str, run_id: str, last: int) -> None:
    """Tasks in the order of STAGES, up to and with number `last`."""
    common = {"recipe": recipe, "run_id": run_id}

    checked = preflight(**common)
    checked.set_caching_options(False)
    if last < 1:
        return
    asked = prompts(**common).after(checked)
    if last < 2:
        return
    written = generate(**common, prompts=asked.outputs["prompts"])
    if last < 3:
        return
    tuned = sft(**common, data=written.outputs["data"])
    if last < 4:
        return
    sampled = sample(**common, prompts=asked.outputs["prompts"], model=tuned.outputs["model"])
    if last < 5:
        return
    labelled = label(**common, samples=sampled.outputs["samples"])
    if last < 6:
        return
    aligned = dpo(**common, preferences=labelled.outputs["preferences"], sft=tuned.outputs["model"])
    if last < 7:
        return
    evaluate(**common, prompts=asked.outputs["prompts"], sft=tuned.outputs["model"], dpo=aligned.outputs["model"])
