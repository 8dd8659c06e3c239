"""`moaa runs`, `moaa report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moaa.cli.options import OptionalRecipe, Root, RunId, application, file_to_write

app = application()


@app.command(name="runs")
def list_runs(
    recipe: OptionalRecipe = None,
    root: Root = None,
    last: Annotated[int, typer.Option(metavar="N", min=1, help="How many, newest first")] = 20,
) -> None:
    """List runs and their states.

    Without options: the runs in the store of the last run from this folder.

    \b
    Examples:
      moaa runs
      moaa runs --recipe my.yaml
    """
    from moaa.commands import runs

    runs.list_runs(recipe, root, last)


@app.command()
def report(
    run_id: RunId = None,
    recipe: OptionalRecipe = None,
    root: Root = None,
    output: Annotated[
        Path,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            callback=file_to_write,
            help="The HTML file to write",
        ),
    ] = Path("report.html"),
) -> None:
    """Write the report of a run again.

    \b
    Examples:
      moaa report
      moaa report demo-20260101-120000-1f0c --recipe demo -o report.html
    """
    from moaa.commands import runs

    runs.report(run_id, recipe, root, output)
