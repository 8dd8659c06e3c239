from typing import Any

from kfp import dsl
from kfp.dsl import Markdown, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def preflight(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    preflight_summary: Output[Markdown],
    compiled_from: str = "",
) -> None:
    """Look at everything the run needs (store, secrets, prompts, engines, trainers); fail with each
    finding and its fix.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        preflight_summary: What was found.
        compiled_from: What the pods took from the recipe with which the pipeline was compiled.
    """
    from moaa.stages import preflight
    from moaa.stages.report import renewed
    from moaa.task import Task

    task = Task(recipe, run_id, overrides)
    with renewed(task):
        preflight.main(task, summary=preflight_summary.path, compiled_from=compiled_from)
