from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Metrics, Model, Output

from moaa.placement import images


@dsl.component(base_image=images.SERVE, install_kfp_package=False)
def evaluate(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    prompts: Input[Dataset],
    sft: Input[Model],
    scores: Output[Dataset],
    evaluate_metrics: Output[Metrics],
    evaluate_summary: Output[Markdown],
    dpo: Input[Model] = None,
) -> None:
    """Let all contestants answer the recipe's benchmarks: scores with intervals, lengths.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        prompts: Manifest of the prompts.
        sft: Manifest of the SFT model.
        scores: Manifest of the scores, answers and judgements.
        evaluate_metrics: The main number of each benchmark with its interval.
        evaluate_summary: Counts of the stage.
        dpo: Manifest of the DPO model; none if the recipe has no DPO.
    """
    from moaa.stages.evaluate import evaluate as stage
    from moaa.stages.report import renewed
    from moaa.task import Task

    inputs = {"prompts": prompts.path, "sft": sft.path, **({"dpo": dpo.path} if dpo else {})}
    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            inputs=inputs,
            output=scores.path,
            summary=evaluate_summary.path,
            metric=evaluate_metrics.log_metric,
        )
