from typing import Any

from kfp import dsl
from kfp.dsl import HTML, Output

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def report(recipe: str, overrides: dict[str, Any], run_id: str, page: Output[HTML]) -> None:
    """Make one HTML file of the run, whole or broken, from its records on S3.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        page: The report.
    """
    from moaa.stages import report
    from moaa.task import Task

    report.main(Task(recipe, run_id, overrides), output=page.path)
