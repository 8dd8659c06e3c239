"""`moaa gate`."""

from __future__ import annotations

from typing import Annotated

import typer

from moaa.cli.options import OptionalRecipe, Root, RunId, Sets, application

app = application()


@app.command()
def gate(
    run_id: RunId = None,
    recipe: OptionalRecipe = None,
    root: Root = None,
    sets: Sets = [],  # noqa: B006
    as_json: Annotated[bool, typer.Option("--json", help="Print the decision as JSON")] = False,
) -> None:
    """Decide again about the model of a run.

    Nothing is run: the run's measurements are used. The rules are those of --recipe, else the
    run's own, else the defaults. Exit status: 0 promote, 3 refuse, 4 undecided.

    \b
    Examples:
      moaa gate
      moaa gate demo-20260101-120000-1f0c --set gate.floor=0.02
    """
    from moaa.commands import decision

    raise typer.Exit(decision.decide(run_id, recipe, root, sets, as_json=as_json))
