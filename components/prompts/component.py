from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Markdown, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def prompts(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    prompts: Output[Dataset],
    prompts_summary: Output[Markdown],
) -> None:
    """Read the prompts, remove duplicates, keep them away from the evaluation's.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        prompts: Manifest of the prompts: tables sft, preference, evaluation, rejected.
        prompts_summary: Counts of the stage.
    """
    from moaa.stages.prompts import prompts as stage
    from moaa.stages.report import renewed
    from moaa.task import Task

    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            output=prompts.path,
            summary=prompts_summary.path,
        )
