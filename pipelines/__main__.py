"""Compile the pipeline or run it: `python -m pipelines --help`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from moaa.errors import MoaaError

app = typer.Typer(add_completion=False, no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False, help=__doc__)
RecipeFile = Annotated[Path, typer.Argument(help="The recipe, e.g. pipelines/recipes/demo.yaml")]
Sets = Annotated[
    list[str], typer.Option("--set", help="Override one field: --set dpo.beta=0.1 (repeatable)", metavar="PATH=VALUE")
]


@app.command()
def compile(
    recipe: RecipeFile,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Default: pipelines/compiled/RECIPE.yaml")] = None,
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
def run(
    recipe: RecipeFile,
    local: Annotated[bool, typer.Option("--local", help="On this machine, by Kubeflow's local runner")] = False,
    until: Annotated[str, typer.Option(help="Stop after this stage")] = "evaluate",
    sets: Sets = [],  # noqa: B006
) -> None:
    """Run the alignment pipeline; finished stages of earlier runs are reused.

    Example:  python -m pipelines run pipelines/recipes/demo.yaml --local --until sft --set sft.epochs=1
    """
    from moaa.recipe.load import load
    from pipelines.align import STAGES
    from pipelines.local import run as run_local

    if not local:
        raise typer.BadParameter("say where to run: --local is the one place there is")
    if until not in STAGES:
        raise typer.BadParameter(f"'{until}' is not a stage; the stages are {', '.join(STAGES)}", param_hint="--until")
    run_local(load(recipe, sets), until)


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
