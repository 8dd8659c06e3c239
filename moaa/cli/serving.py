"""`moaa gateway`, `moaa promote`, `moaa rollback`, `moaa models`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moaa.cli.options import OptionalRecipe, Root, application

app = application()
Name = Annotated[str, typer.Argument(help="The name under which the model is published")]
Slots = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The name below `promoted` in moaa-serving's values. Default: NAME"
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(help="The namespace of moaa-serving. Default: MOAA_NAMESPACE, or the context's"),
]


@app.command()
def gateway(
    config: Annotated[Path, typer.Argument(help="The gateway's YAML file")],
    check: Annotated[bool, typer.Option("--check", help="Check the file and stop")] = False,
) -> None:
    """Serve models behind one OpenAI endpoint.

    Every mistake in the file is shown with its line. SIGTERM or Ctrl-C stops the gateway; answers
    in progress may end first.

    \b
    Examples:
      moaa gateway gateway.yaml
      moaa gateway gateway.yaml --check

    A file for a laptop with two servers:

    \b
    anonymous: true
    models:
      smol: {endpoints: [http://127.0.0.1:8000/v1]}
      big: {endpoints: [https://big.example/v1], key_env: BIG_API_KEY}
    """
    from moaa.commands import serving

    serving.gateway(config, check=check)


@app.command()
def promote(
    name: Name,
    version: Annotated[
        str,
        typer.Argument(help="A version, see `moaa models`, or the s3:// address of a model"),
    ],
    steps: Annotated[
        str | None,
        typer.Option(
            help="The new version's shares of the conversations, in per cent. Default: 5,25,100"
        ),
    ] = None,
    hold_s: Annotated[
        float | None,
        typer.Option("--hold", metavar="SECONDS", help="How long each share is held. Default: 300"),
    ] = None,
    hold_requests: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="End a share before --hold, once the version has answered N requests at it. "
            "Default: none",
        ),
    ] = None,
    deadline_s: Annotated[
        float | None,
        typer.Option(
            "--deadline",
            metavar="SECONDS",
            help="After this time everything is put back. Default: 7200",
        ),
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept in the history of production")] = "by hand",
    values: Annotated[
        bool, typer.Option("--values", help="Only print the values of moaa-serving")
    ] = False,
    slots: Slots = None,
    recipe: OptionalRecipe = None,
    root: Root = None,
    namespace: Namespace = None,
) -> None:
    """Put a version into production in steps.

    It runs next to the current version. If it answers worse, the gateway sets its share to 0, and
    this command prints why and exits with status 3. Without a cluster only the production pointer
    on S3 moves.

    \b
    Examples:
      moaa promote aligned 0a1b2c3d4e5f
      moaa promote aligned s3://moaa/demo/dpo/1f0c… --steps 10,100 --hold 60
    """
    from moaa.commands import promotion

    where = promotion.Where(recipe, root, namespace, slots)
    if values:
        promotion.values(name, version, where)
        return
    options = {
        "steps": steps,
        "hold_s": hold_s,
        "hold_requests": hold_requests,
        "deadline_s": deadline_s,
    }
    promotion.promote(name, version, options, where, why=reason)


@app.command()
def rollback(
    name: Name,
    reason: Annotated[str, typer.Option(help="Kept in the history of production")] = "by hand",
    slots: Slots = None,
    recipe: OptionalRecipe = None,
    root: Root = None,
    namespace: Namespace = None,
) -> None:
    """Give all conversations back to the previous version.

    It takes less than two seconds while the old slot is still running, else one start of the model.

    \b
    Examples:
      moaa rollback aligned --reason "answers in the wrong language"
    """
    from moaa.commands import promotion

    promotion.rollback(name, reason, promotion.Where(recipe, root, namespace, slots))


@app.command()
def models(recipe: OptionalRecipe = None, root: Root = None, namespace: Namespace = None) -> None:
    """List published versions and what the cluster serves.

    Each version is shown with its main scores; each model with the version in production, since
    when and why.

    \b
    Examples:
      moaa models
      moaa models --root s3://moaa/demo
    """
    from moaa.commands import promotion

    promotion.models(promotion.Where(recipe, root, namespace))
