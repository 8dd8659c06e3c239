"""`moaa retrain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moaa.cli.options import RecipeFile, Sets, application, folder_to_write

app = application()


@app.command()
def retrain(
    recipe: RecipeFile,
    host: Annotated[
        str,
        typer.Option(metavar="URL", help="Run on Kubeflow Pipelines: its UI's or API's address"),
    ] = "",
    in_cluster: Annotated[
        bool, typer.Option("--in-cluster", help="Run in one Job on a cluster, without Kubeflow")
    ] = False,
    local: Annotated[
        bool, typer.Option("--local", help="Run on this machine: the default")
    ] = False,
    wait: Annotated[
        bool, typer.Option("--wait", help="Stay until the run is over; --local always does")
    ] = False,
    plan: Annotated[
        bool, typer.Option("--plan", help="Only show what has changed and what a run may cost")
    ] = False,
    budget_usd: Annotated[
        float | None,
        typer.Option(metavar="USD", min=0, help="Start no run whose planned price is higher"),
    ] = None,
    budget_gpu_hours: Annotated[
        float | None,
        typer.Option(metavar="HOURS", min=0, help="Start no run whose planned GPU hours are more"),
    ] = None,
    wait_for_lock: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="How long to wait for another retraining of this model to end (a killed one "
            "is noticed after 60 s)",
        ),
    ] = 90,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            callback=folder_to_write,
            help="Write retrain.json, .md, .xml (JUnit) here",
        ),
    ] = None,
    experiment: Annotated[str, typer.Option(help="Kubeflow's experiment")] = "moaa",
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of your Kubeflow profile, or of the Job")
    ] = None,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Retrain a published model if an input has changed.

    It compares the recipe, the prompts, the models and the version of moaa with those of the
    version in production. If nothing has changed, nothing is run. A run that an earlier command
    started and left is found and continued.

    \b
    Exit status:
      0   promoted or published; nothing new; with --plan; started without --wait
      3   refused by the gate
      4   undecided: too few prompts
      1   failed; or over the budget
      75  busy: another retraining of this model is running

    \b
    Examples:
      moaa retrain my.yaml
      moaa retrain my.yaml --plan --output out
      moaa retrain my.yaml --host http://localhost:8080 --wait \\
        --budget-usd 500 -o out
    """
    if sum(map(bool, (host, in_cluster, local))) > 1:
        raise typer.BadParameter("Give one of --host, --in-cluster and --local.")
    from moaa.commands import retraining
    from moaa.commands.pipeline import Kubeflow

    asked = retraining.RetrainOptions(
        kubeflow=Kubeflow(host, experiment, namespace, wait) if host else None,
        in_cluster=in_cluster,
        namespace=namespace,
        wait=wait,
        plan_only=plan,
        budget_usd=budget_usd,
        budget_gpu_hours=budget_gpu_hours,
        patience_s=wait_for_lock,
        output=output,
    )
    raise typer.Exit(retraining.retrain(recipe, sets, asked))
