"""`moaa run`, `moaa submit` and `moaa compile`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import typer

from moaa import home
from moaa.errors import MoaaError, RecipeError
from moaa.packages import install_command
from moaa.progress.messages import log
from moaa.progress.terminal import out
from moaa.recipe.load import load_file
from moaa.recipe.schema import Recipe


@dataclass(frozen=True)
class Kubeflow:
    """Where and how a run is submitted."""

    host: str
    experiment: str
    namespace: str | None
    wait: bool


def run(recipe: Path, sets: Sequence[str], until: str | None) -> None:
    """Run the pipeline on this machine, or in the pod of --in-cluster."""
    loaded = load_file(recipe, sets)
    with kubeflow_needed():
        from moaa.pipelines import local

        _check_stage(loaded.recipe, until)
    from moaa.kubernetes.names import RUN_ENV

    # The pod of a runner gets the run's name. A terminated run gives back there what it holds.
    run_id = os.environ.get(RUN_ENV) or home.new_id(loaded.recipe.name)
    try:
        local.run(loaded, until, run_id)
    except KeyboardInterrupt:
        if os.getpid() == 1:
            from moaa.stages.report import give_back

            give_back(loaded.recipe, run_id)
        log.warning("The same command continues this run: finished stages are reused.")
        raise


def run_in_cluster(
    recipe: Path, sets: Sequence[str], until: str | None, namespace: str | None
) -> None:
    """Create the Job of a run and follow it."""
    loaded = load_file(recipe, sets)
    with kubeflow_needed():
        from moaa.pipelines import incluster, runner_job

        _check_stage(loaded.recipe, until)
    incluster.start(loaded, runner_job.of_run(until), namespace)


def follow(run_id: str, namespace: str | None) -> None:
    """Print the log of a run in the cluster until it is over."""
    with kubeflow_needed():
        from moaa.pipelines import incluster
    incluster.follow(run_id, incluster.connect(namespace=namespace))


def stop(run_id: str, namespace: str | None) -> None:
    """Stop a run in the cluster."""
    with kubeflow_needed():
        from moaa.pipelines import incluster
    incluster.stop(run_id, incluster.connect(namespace=namespace))


def submit(recipe: Path, sets: Sequence[str], until: str | None, kubeflow: Kubeflow) -> None:
    """Start a run on Kubeflow Pipelines."""
    loaded = load_file(recipe, sets)
    with kubeflow_needed():
        from moaa.pipelines.submit import submit as start

        _check_stage(loaded.recipe, until)
    start(loaded, kubeflow.host, until, kubeflow.experiment, kubeflow.namespace, wait=kubeflow.wait)


def compile_recipe(
    recipe: Path, sets: Sequence[str], output: Path | None, until: str | None = None
) -> None:
    """Write the compiled pipeline."""
    loaded = load_file(recipe, sets)
    with kubeflow_needed():
        from moaa.pipelines.compiling import compile_recipe as write

        _check_stage(loaded.recipe, until)
    target = output or Path("pipelines/compiled") / f"{recipe.stem}.yaml"
    write(loaded, target, until)
    out(f"compiled {recipe} to {target}")


def _check_stage(recipe: Recipe, until: str | None) -> None:
    from moaa.stages.table import of_recipe

    try:
        of_recipe(recipe, until)
    except RecipeError as error:
        raise typer.BadParameter(str(error), param_hint="--until") from None


@contextmanager
def kubeflow_needed() -> Iterator[None]:
    """Turn a missing import of Kubeflow into an error with the remedy: it is an optional extra."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("kfp", "kubernetes"):
            raise
        raise MoaaError(
            f"This command needs {error.name}, which is not installed. "
            f"Install it: {install_command('moaa[pipelines,kubernetes]')}"
        ) from None
