from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Model, Output

from moaa.placement import images


@dsl.component(base_image=images.SERVE, install_kfp_package=False)
def sample(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    prompts: Input[Dataset],
    model: Input[Model],
    samples: Output[Dataset],
    sample_summary: Output[Markdown],
) -> None:
    """Sample the tuned model several times a prompt; identical answers are merged.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        prompts: Manifest of the prompts.
        model: Manifest of the SFT model.
        samples: Manifest of the distinct answers.
        sample_summary: Counts of the stage.
    """
    from moaa.stages.report import renewed
    from moaa.stages.sample import sample as stage
    from moaa.task import Task

    inputs = {"prompts": prompts.path, "sft": model.path}
    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            inputs=inputs,
            output=samples.path,
            summary=sample_summary.path,
        )
