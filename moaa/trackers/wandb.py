"""Weights & Biases, through its package: one run for each stage, grouped by the run of moaa."""

from __future__ import annotations

import importlib
from typing import Any

from moaa.errors import RecipeError
from moaa.packages import install_command
from moaa.trackers.entry import TrackerEntry


def write(entry: TrackerEntry, server: str, key: str, project: str) -> None:
    """Log the entry. Raises RecipeError if the package is not installed."""
    try:
        package: Any = importlib.import_module("wandb")
    except ImportError:
        raise RecipeError(
            f"the package wandb is not installed here: `{install_command('wandb')}`; the image "
            "of the stages needs it too"
        ) from None
    settings = package.Settings(base_url=server, api_key=key, silent=True, console="off")
    run = package.init(
        project=project,
        id=f"{entry.run_id}-{entry.stage}",
        name=f"{entry.run_id} {entry.stage}",
        group=entry.run_id,
        job_type=entry.stage,
        config=dict(entry.tags),
        resume="allow",
        settings=settings,
    )
    # Its own step only grows: it drops what comes later for an earlier step, as a number does that
    # was measured on held-out rows while the training went on.
    steps = f"{entry.stage}/step"
    run.define_metric(steps)
    run.define_metric(f"{entry.stage}/*", step_metric=steps)
    by_step: dict[int, dict[str, float]] = {}
    for name, step, value in entry.scalars:
        by_step.setdefault(step, {})[name] = value
    for step, values in sorted(by_step.items()):
        run.log({**values, steps: step})
    run.finish()
