from kfp import dsl
from kfp.dsl import Dataset, Markdown, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def prompts(recipe: str, run_id: str, prompts: Output[Dataset], summary: Output[Markdown]) -> None:
    """Read the prompts, remove duplicates, keep them away from the evaluation's.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        run_id: Names the run's records on S3.
        prompts: Manifest of the prompts: tables sft, preference, evaluation, rejected.
        summary: Counts of the stage.
    """
    from moaa.stages.prompts import prompts as stage

    stage.main(recipe, run_id, output=prompts.path, summary=summary.path)
