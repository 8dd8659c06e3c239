from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def dpo(
    recipe: str,
    run_id: str,
    preferences: Input[Dataset],
    sft: Input[Model],
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Train the SFT model on the preferences with DPO; the SFT model is the reference (TRL under
    DeepSpeed).

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        run_id: Names the run's records on S3.
        preferences: Manifest of the pairs.
        sft: Manifest of the SFT model.
        model: Manifest of the tuned model.
        metrics: Last loss, reward accuracy and margin.
        summary: Counts of the stage.
    """
    from moaa.stages.dpo import dpo as stage

    inputs = {"preferences": preferences.path, "sft": sft.path}
    stage.main(
        recipe,
        run_id,
        inputs=inputs,
        output=model.path,
        summary=summary.path,
        metric=metrics.log_metric,
    )
