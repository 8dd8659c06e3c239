"""`moaa recipe check | show | plan | helm-values | list`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from moaa.cli.options import RecipeFile, Sets, application
from moaa.progress.terminal import out

app = application(help="Check, show or plan a recipe.")


class Chart(StrEnum):
    """The Helm charts that values can be printed for."""

    serving = "serving"
    platform = "platform"


@app.command()
def check(file: RecipeFile, sets: Sets = []) -> None:  # noqa: B006
    """Check a recipe.

    All mistakes are shown at once, each with its file and line.

    \b
    Examples:
      moaa recipe check my.yaml
    """
    from moaa.commands import recipes

    recipes.check(file, sets)


@app.command()
def show(
    file: RecipeFile,
    sets: Sets = [],  # noqa: B006
    given: Annotated[bool, typer.Option("--given", help="Leave out defaults")] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="One whole recipe: `extends` merged, files inlined")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The same on one line, for Kubeflow's UI and `kfp`")
    ] = False,
) -> None:
    """Show every value and its origin.

    The origin is a line of a file, --set, or the default.

    \b
    Examples:
      moaa recipe show paper-gemma --given --set dpo.epochs=3
      kfp run create -e moaa -r mine -f my-pipeline.yaml \\
        recipe="$(moaa recipe show my.yaml --json)"
    """
    from moaa.commands import recipes

    if given + as_yaml + as_json > 1:
        raise typer.BadParameter("Give one of --given, --yaml and --json.")
    if as_json:
        recipes.show_json(file, sets)
    elif as_yaml:
        recipes.show_yaml(file, sets)
    else:
        recipes.show(file, sets, given)


@app.command()
def plan(file: RecipeFile, sets: Sets = []) -> None:  # noqa: B006
    """Count calls, tokens, hours and dollars before a run.

    The paper's own numbers are shown next to them.

    \b
    Examples:
      moaa recipe plan paper-llama --set label.judge.criteria=all
    """
    from moaa.commands import recipes

    recipes.plan(file, sets)


@app.command(name="helm-values")
def helm_values(
    file: RecipeFile,
    sets: Sets = [],  # noqa: B006
    chart: Annotated[Chart, typer.Option(help="serving or platform")] = Chart.serving,
) -> None:
    """Print a Helm chart's values for a recipe.

    They list the models that the recipe's mixtures, judges and target need, with their pools and
    sizes. `moaa preflight` compares what the cluster serves with the recipe.

    \b
    Examples:
      moaa recipe helm-values my.yaml | \\
        helm upgrade --install ensemble helm/moaa-serving -f -
    """
    from moaa.commands import recipes

    recipes.helm_values(file, sets, chart.value)


@app.command(name="list")
def list_recipes() -> None:
    """List the recipes that come with moaa.

    Each name can be used instead of a file.

    \b
    Examples:
      moaa recipe list
    """
    from moaa.recipe.files import shipped

    out("\n".join(shipped()))
