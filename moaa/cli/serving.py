"""`moaa gateway`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from moaa.cli.options import application

app = application()


@app.command()
def gateway(
    config: Annotated[Path, typer.Argument(metavar="CONFIG", help="The gateway's YAML file")],
    check: Annotated[
        bool, typer.Option("--check", help="Say whether the file is right, and end")
    ] = False,
) -> None:
    """Serve models behind one OpenAI endpoint.

    Every mistake in the file is shown with its line. SIGTERM or Ctrl-C stops it: answers in
    progress may end first.

    Example:  moaa gateway gateway.yaml

    Example:  moaa gateway gateway.yaml --check

    A file for a laptop with two servers:

    \b
    anonymous: true
    models:
      smol: {endpoints: [http://127.0.0.1:8000/v1]}
      big: {endpoints: [https://big.example/v1], key_env: BIG_API_KEY}
    """
    from moaa.commands import serving

    serving.gateway(config, check=check)
