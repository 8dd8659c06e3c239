from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def generate(
    recipe: str,
    run_id: str,
    prompts: Input[Dataset],
    data: Output[Dataset],
    summary: Output[Markdown],
) -> None:
    """Let a mixture of agents answer every prompt: proposers answer, an aggregator synthesizes,
    turn by turn.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        run_id: Names the run's records on S3.
        prompts: Manifest of the prompts.
        data: Manifest of the SFT conversations, with their proposals.
        summary: Counts of the stage.
    """
    from moaa.stages.generate import generate as stage

    stage.main(
        recipe, run_id, inputs={"prompts": prompts.path}, output=data.path, summary=summary.path
    )
