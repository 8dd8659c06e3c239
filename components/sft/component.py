from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def sft(
    recipe: str,
    run_id: str,
    data: Input[Dataset],
    model: Output[Model],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Fine-tune the target on the mixture's answers (TRL under DeepSpeed).

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        run_id: Names the run's records on S3.
        data: Manifest of the SFT conversations.
        model: Manifest of the tuned model.
        metrics: Last loss, steps, tokens.
        summary: Counts of the stage.
    """
    from moaa.stages.sft import sft as stage

    stage.main(
        recipe,
        run_id,
        inputs={"data": data.path},
        output=model.path,
        summary=summary.path,
        metric=metrics.log_metric,
    )
