from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def sft(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    data: Input[Dataset],
    sft_model: Output[Model],
    sft_metrics: Output[Metrics],
    sft_summary: Output[Markdown],
) -> None:
    """Fine-tune the target on the mixture's answers (TRL under DeepSpeed).

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        data: Manifest of the SFT conversations.
        sft_model: Manifest of the tuned model.
        sft_metrics: Last loss, steps, tokens.
        sft_summary: Counts of the stage.
    """
    from moaa.stages.report import renewed
    from moaa.stages.sft import sft as stage
    from moaa.task import Task

    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            inputs={"data": data.path},
            output=sft_model.path,
            summary=sft_summary.path,
            metric=sft_metrics.log_metric,
        )
