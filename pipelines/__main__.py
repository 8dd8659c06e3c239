"""Compile the pipeline, submit it to Kubeflow, or run it: `python -m pipelines --help`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from moaa.errors import MoaaError, RecipeError

if TYPE_CHECKING:
    from moaa.recipe.load import Loaded

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help=__doc__,
)
RecipeFile = Annotated[Path, typer.Argument(help="The recipe, e.g. pipelines/recipes/demo.yaml")]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set", help="Override one field: --set dpo.beta=0.1 (repeatable)", metavar="PATH=VALUE"
    ),
]


@app.command()
def compile(
    recipe: RecipeFile,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Default: pipelines/compiled/RECIPE.yaml")
    ] = None,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Compile the alignment pipeline with RECIPE as the default of its parameter.

    Example:  python -m pipelines compile pipelines/recipes/demo.yaml
    """
    from pipelines.compiling import compile_recipe

    target = output or Path("pipelines/compiled") / f"{recipe.stem}.yaml"
    compile_recipe(recipe, target, sets)
    print(f"compiled {recipe} to {target}")


@app.command()
def submit(
    recipe: RecipeFile,
    host: Annotated[
        str, typer.Option(help="Kubeflow Pipelines: its UI's address, or its API's", metavar="URL")
    ],
    experiment: Annotated[
        str, typer.Option(help="Kubeflow's experiment; made where it is not there")
    ] = "moaa",
    namespace: Annotated[
        str | None, typer.Option(help="Your profile's, where Kubeflow has many users")
    ] = None,
    until: Annotated[str, typer.Option(help="Stop after this stage")] = "evaluate",
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run; exit status 0 only if it SUCCEEDED")
    ] = False,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Start a run on Kubeflow.

    The resolved recipe goes to S3 under its digest, the pipeline compiled from it to Kubeflow.
    KFP_TOKEN: a bearer token; KFP_CA: the file of the host's certificate authority.

    Example:  python -m pipelines submit pipelines/recipes/paper-llama.yaml --host
    http://localhost:8080 --wait
    """
    from moaa.recipe.load import load_file
    from pipelines.submit import submit as start

    start(load_file(recipe, sets), host, _stage(until), experiment, namespace, wait)


@app.command()
def run(
    recipe: Annotated[
        Path | None, typer.Argument(help="The recipe; not with --follow and --stop")
    ] = None,
    local: Annotated[
        bool, typer.Option("--local", help="On this machine, by Kubeflow's local runner")
    ] = False,
    in_cluster: Annotated[
        bool, typer.Option("--in-cluster", help="In one Job on a cluster; no Kubeflow is needed")
    ] = False,
    follow: Annotated[
        str | None,
        typer.Option(help="Print the log of a run that --in-cluster started", metavar="RUN"),
    ] = None,
    stop: Annotated[
        str | None, typer.Option(help="End a run that --in-cluster started", metavar="RUN")
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Of the Job; default: the recipe's, else the context's")
    ] = None,
    until: Annotated[str, typer.Option(help="Stop after this stage")] = "evaluate",
    run_id: Annotated[
        str | None, typer.Option(help="What the run is called; made up unless given")
    ] = None,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Run the alignment pipeline; finished stages of earlier runs are reused.

    Example:  python -m pipelines run pipelines/recipes/demo.yaml --local --until sft --set
    sft.epochs=1

    Example:  python -m pipelines run recipe.yaml --in-cluster
    """
    from moaa.recipe.load import load_file

    if sum(map(bool, (local, in_cluster, follow, stop))) != 1:
        raise typer.BadParameter("say one of: --local, --in-cluster, --follow RUN, --stop RUN")
    if (recipe is None) == (local or in_cluster):
        raise typer.BadParameter(
            "--local and --in-cluster want a RECIPE; --follow and --stop want the run's name alone"
        )
    if recipe and local:
        _run_here(load_file(recipe, sets), _stage(until), run_id)
        return
    from pipelines import incluster

    if recipe:
        incluster.start(load_file(recipe, sets), _stage(until), namespace)
    elif follow:
        incluster.follow(follow, incluster.connect(namespace=namespace))
    elif stop:
        incluster.stop(stop, incluster.connect(namespace=namespace))


def _run_here(loaded: Loaded, until: str, run_id: str | None) -> None:
    """On this machine, or in the pod that --in-cluster made: there, what a terminated run holds is
    given back first."""
    from pipelines import local

    run_id = run_id or local.new_id(loaded.recipe.name)
    try:
        local.run(loaded, until, run_id)
    except KeyboardInterrupt:
        if os.getpid() == 1:
            from moaa.stages.report import give_back
            from pipelines.incluster import end_children

            end_children()
            give_back(loaded.recipe, run_id)
        raise


def _stage(name: str) -> str:
    from moaa.stages.table import up_to

    try:
        up_to(name)
    except RecipeError as error:
        raise typer.BadParameter(str(error), param_hint="--until") from None
    return name


def main() -> None:
    try:
        app()
    except MoaaError as error:
        print(f"\n{error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on where it was", file=sys.stderr)
        sys.exit(130)


if __name__ == "__main__":
    main()
