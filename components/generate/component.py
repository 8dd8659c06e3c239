from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def generate(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    prompts: Input[Dataset],
    sft_data: Output[Dataset],
    generate_summary: Output[Markdown],
) -> None:
    """Let a mixture of agents answer every prompt: proposers answer, an aggregator synthesizes,
    turn by turn.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        prompts: Manifest of the prompts.
        sft_data: Manifest of the SFT conversations, with their proposals.
        generate_summary: Counts of the stage.
    """
    from moaa.stages.generate import generate as stage
    from moaa.stages.report import renewed
    from moaa.task import Task

    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            inputs={"prompts": prompts.path},
            output=sft_data.path,
            summary=generate_summary.path,
        )
