from kfp import dsl
from kfp.dsl import Markdown, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def preflight(recipe: str, run_id: str, summary: Output[Markdown], compiled_from: str = "") -> None:
    """Look at everything the run needs (store, secrets, prompts, engines, trainers); fail with each
    finding and its fix.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        run_id: Names the run's records on S3.
        summary: What was found.
        compiled_from: What the pods took from the recipe with which the pipeline was compiled.
    """
    from moaa.stages import preflight

    preflight.main(recipe, run_id, summary=summary.path, compiled_from=compiled_from)
