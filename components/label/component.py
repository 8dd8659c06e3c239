from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def label(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    samples: Input[Dataset],
    preferences: Output[Dataset],
    label_summary: Output[Markdown],
) -> None:
    """Let a mixture of judges compare all pairs of answers in both orders; keep best against worst.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        samples: Manifest of the answers.
        preferences: Manifest of the pairs and of every judgement.
        label_summary: Counts of the stage.
    """
    from moaa.stages.label import label as stage
    from moaa.stages.report import renewed
    from moaa.task import Task

    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            inputs={"samples": samples.path},
            output=preferences.path,
            summary=label_summary.path,
        )
