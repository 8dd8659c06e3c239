from typing import Any

from kfp import dsl
from kfp.dsl import Dataset, Input, Markdown, Output, OutputPath

from moaa.placement import images


@dsl.component(base_image=images.CORE, install_kfp_package=False)
def gate(
    recipe: str,
    overrides: dict[str, Any],
    run_id: str,
    scores: Input[Dataset],
    decision: Output[Dataset],
    gate_summary: Output[Markdown],
    verdict: OutputPath(str),  # type: ignore[valid-type]
    next_recipe: OutputPath(str),  # type: ignore[valid-type]
) -> None:
    """Decide whether the model may be published: promote, refuse or undecided.

    Args:
        recipe: The recipe: YAML text, or its s3:// address.
        overrides: Values that replace those of the recipe, by their paths.
        run_id: Names the run's records on S3.
        scores: Manifest of the evaluation's scores.
        decision: Manifest of what each rule found.
        gate_summary: The rules, and what they found.
        verdict: promote, refuse or undecided. Only `promote` leads to another round.
        next_recipe: Address of the next round's recipe; empty if there is none.
    """
    from pathlib import Path

    from moaa.stages.gate import gate as stage
    from moaa.stages.report import renewed
    from moaa.stages.rounds import kept_next
    from moaa.task import Task

    task = Task(recipe, run_id, overrides)
    with renewed(task):
        stage.main(
            task,
            inputs={"scores": scores.path},
            output=decision.path,
            summary=gate_summary.path,
        )
        decided, following = kept_next(task, Path(decision.path).read_text())
        Path(verdict).write_text(decided)
        Path(next_recipe).write_text(following)
