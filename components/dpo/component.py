from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def dpo(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    preferences: Input[Dataset],
    sft: Input[Model],
    dpo_model: Output[Model],
    dpo_metrics: Output[Metrics],
    dpo_summary: Output[Markdown],
) -> None:
    """Train the SFT model on the preferences with DPO; the SFT model is the reference (TRL under
    DeepSpeed).

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        preferences: Manifest of the pairs.
        sft: Manifest of the SFT model.
        dpo_model: Manifest of the tuned model.
        dpo_metrics: Last loss, reward accuracy and margin.
        dpo_summary: Counts of the stage.
    """
    from moaa.stages.dpo import dpo as stage
    from moaa.stages.report import renewed
    from moaa.task import Task

    inputs = {"preferences": preferences.path, "sft": sft.path}
    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            inputs=inputs,
            output=dpo_model.path,
            summary=dpo_summary.path,
            metric=dpo_metrics.log_metric,
        )
