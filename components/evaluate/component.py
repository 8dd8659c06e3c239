from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output

from moaa.placement import images


@dsl.component(base_image=images.SERVE, install_kfp_package=False)
def evaluate(
    recipe: str,
    run_id: str,
    prompts: Input[Dataset],
    sft: Input[Model],
    dpo: Input[Model],
    scores: Output[Dataset],
    metrics: Output[Metrics],
    summary: Output[Markdown],
) -> None:
    """Judge the tuned models against the base on held-out prompts: win rates with intervals,
    lengths.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        run_id: Names the run's records on S3.
        prompts: Manifest of the prompts.
        sft: Manifest of the SFT model.
        dpo: Manifest of the DPO model.
        scores: Manifest of the answers, judgements and win rates.
        metrics: Win rates with their intervals.
        summary: Counts of the stage.
    """
    from moaa.stages.evaluate import evaluate as stage

    inputs = {"prompts": prompts.path, "sft": sft.path, "dpo": dpo.path}
    stage.main(
        recipe,
        run_id,
        inputs=inputs,
        output=scores.path,
        summary=summary.path,
        metric=metrics.log_metric,
    )
