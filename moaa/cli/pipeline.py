"""`moaa run`, `moaa evaluate`, `moaa submit`, `moaa compile`, `moaa sweep`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moaa.cli.options import (
    RecipeFile,
    Rounds,
    Sets,
    Until,
    application,
    pipeline_to_write,
    recipe_file,
    sweep_file,
    with_rounds,
)

app = application()


@app.command()
def run(
    recipe: Annotated[
        Path | None,
        typer.Argument(
            metavar="RECIPE",
            parser=recipe_file,
            help="A recipe's YAML file, or the name of one that comes with moaa: demo",
        ),
    ] = None,
    in_cluster: Annotated[
        bool, typer.Option("--in-cluster", help="Run in one Job on a cluster, without Kubeflow")
    ] = False,
    follow: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Print the log of a run that --in-cluster started"),
    ] = None,
    stop: Annotated[
        str | None, typer.Option(metavar="RUN", help="Stop a run that --in-cluster started")
    ] = None,
    namespace: Annotated[
        str | None,
        typer.Option(help="Namespace of the Job. Default: the recipe's, else the context's"),
    ] = None,
    until: Until = None,
    rounds: Rounds = None,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Run the pipeline: on this machine, or in a cluster.

    Finished stages of earlier runs are reused; the same command continues a run that was stopped.

    \b
    Examples:
      moaa run demo
      moaa run my.yaml --until sft --set sft.epochs=1
      moaa run my.yaml --rounds 3
      moaa run my.yaml --in-cluster
      moaa run --follow demo-20260101-120000-1f0c
    """
    if sum(map(bool, (recipe, follow, stop))) != 1:
        raise typer.BadParameter("Give one of: RECIPE, --follow RUN, --stop RUN.")
    if in_cluster and not recipe:
        raise typer.BadParameter("--in-cluster needs a RECIPE.")
    from moaa.commands import pipeline

    if follow:
        pipeline.follow(follow, namespace)
    elif stop:
        pipeline.stop(stop, namespace)
    elif recipe and in_cluster:
        pipeline.run_in_cluster(recipe, with_rounds(sets, rounds), until, namespace)
    elif recipe:
        pipeline.run(recipe, with_rounds(sets, rounds), until)


@app.command()
def evaluate(
    recipe: RecipeFile,
    models: Annotated[
        list[str],
        typer.Option(
            "--model",
            metavar="NAME=SOURCE",
            help="A model to measure: hub id, s3:// prefix, folder, or the URL of a server",
        ),
    ] = [],  # noqa: B006
    in_cluster: Annotated[
        bool, typer.Option("--in-cluster", help="Evaluate in one Job on a cluster")
    ] = False,
    namespace: Annotated[
        str | None,
        typer.Option(help="Namespace of the Job. Default: the recipe's, else the context's"),
    ] = None,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Measure given models with the recipe's benchmarks.

    The recipe's contestants are measured too, except those that a run trains (sft, dpo). Answers
    and judgements of earlier evaluations and runs are reused.

    \b
    Examples:
      moaa evaluate my.yaml --model production=s3://models/production
      moaa evaluate my.yaml --model gpt=https://host/v1
      moaa evaluate my.yaml --model new=s3://models/candidate --in-cluster
    """
    from moaa.commands import evaluation

    if in_cluster:
        evaluation.evaluate_in_cluster(recipe, sets, models, namespace)
    else:
        evaluation.evaluate(recipe, sets, models)


@app.command()
def submit(
    recipe: RecipeFile,
    host: Annotated[
        str, typer.Option(metavar="URL", help="Kubeflow Pipelines: the address of its UI or API")
    ],
    experiment: Annotated[
        str, typer.Option(help="Kubeflow's experiment; created if it does not exist")
    ] = "moaa",
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of your profile, if Kubeflow has many users")
    ] = None,
    until: Until = None,
    rounds: Rounds = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the run; exit status 0 only if it SUCCEEDED")
    ] = False,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Start a run on Kubeflow Pipelines.

    The resolved recipe is written to S3 under its digest, and the pipeline compiled from it is sent
    to Kubeflow. Environment: KFP_TOKEN is a bearer token, KFP_CA the file of the host's certificate
    authority.

    \b
    Examples:
      moaa submit my.yaml --host http://localhost:8080 --wait
    """
    from moaa.commands import pipeline

    to = pipeline.Kubeflow(host, experiment, namespace, wait)
    pipeline.submit(recipe, with_rounds(sets, rounds), until, to)


@app.command()
def compile(
    recipe: RecipeFile,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            callback=pipeline_to_write,
            help="Default: pipelines/compiled/RECIPE.yaml",
        ),
    ] = None,
    until: Until = None,
    rounds: Rounds = None,
    sets: Sets = [],  # noqa: B006
) -> None:
    """Compile the pipeline to YAML for Kubeflow.

    RECIPE becomes the default of the pipeline's parameter `recipe`; `overrides` is empty.

    \b
    Examples:
      moaa compile my.yaml -o my-pipeline.yaml
    """
    from moaa.commands import pipeline

    pipeline.compile_recipe(recipe, with_rounds(sets, rounds), output, until)


@app.command()
def sweep(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="SWEEP",
            parser=sweep_file,
            help="A sweep's YAML file, or the name of one that comes with moaa: paper-tables",
        ),
    ],
    plan: Annotated[
        bool, typer.Option("--plan", help="Only print the price of each variant and of all")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Only compare the finished runs")
    ] = False,
    at_once: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Run N variants at once. Default: the sweep's"),
    ] = None,
    budget: Annotated[
        float | None,
        typer.Option(
            metavar="USD", min=0, help="Start only variants whose planned price fits, in order"
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(metavar="URL", help="Submit each variant to Kubeflow Pipelines here")
    ] = "",
    experiment: Annotated[str, typer.Option(help="Kubeflow's experiment")] = "moaa",
    in_cluster: Annotated[
        bool, typer.Option("--in-cluster", help="Run each variant in a Job on a cluster")
    ] = False,
    namespace: Annotated[
        str | None, typer.Option(help="Namespace of your profile, or of the Jobs")
    ] = None,
) -> None:
    """Run named variants of a recipe, and compare them.

    Stages that variants share are computed once. The same command continues a stopped sweep. The
    comparison is printed, and is a page in .moaa/sweeps. With --host or --in-cluster all variants
    are started; use --compare later to see the results.

    \b
    Examples:
      moaa sweep paper-tables --plan
      moaa sweep my-sweep.yaml --at-once 2 --budget 500
      moaa sweep my-sweep.yaml --host http://localhost:8080
    """
    if sum(map(bool, (plan, compare, host, in_cluster))) > 1:
        raise typer.BadParameter("Give one of --plan, --compare, --host and --in-cluster.")
    if at_once and (host or in_cluster):
        raise typer.BadParameter(
            "--at-once is for runs on this machine: on a cluster all variants are started, and "
            "its quotas decide how many run at the same time."
        )
    from moaa.commands import sweep_run
    from moaa.commands.pipeline import Kubeflow

    if plan:
        sweep_run.plan(file, budget)
    elif compare:
        sweep_run.compare(file)
    elif host or in_cluster:
        to = Kubeflow(host, experiment, namespace, wait=False) if host else None
        sweep_run.submit(file, budget, to, namespace)
    else:
        sweep_run.run(file, at_once, budget)
