"""`moaa ask`, `moaa preflight`, `moaa fetch`, `moaa split-armorm`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from moaa.cli.options import RecipeFile, Sets, application, file_to_write, folder_to_write

app = application()


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
    """Answer one question with a recipe's mixture.

    Use it to try a recipe before a run. Each proposal is shown when it arrives, then the
    synthesis, with tokens and seconds.

    \b
    Examples:
      moaa ask demo "Why is the sky blue?"
      moaa ask my.yaml "Why?" --endpoint http://127.0.0.1:8000/v1 \\
        --endpoint qwen2-72b=http://10.0.0.2:8000/v1
    """
    from moaa.commands import mixture_question

    mixture_question.ask(
        file, sys.stdin.read() if question == "-" else question, system, endpoint, sets
    )


@app.command()
def preflight(file: RecipeFile, sets: Sets = []) -> None:  # noqa: B006
    """Check what would make a run fail, and show how to fix it.

    Store, secrets, prompts, models, engines, training, disk, and the cluster if the recipe names
    one.

    \b
    Examples:
      moaa preflight demo
    """
    from moaa.commands import runs

    runs.preflight(file, sets)


@app.command()
def fetch(
    source: Annotated[
        str, typer.Argument(help="s3:// artifact or folder, hub id, package:PATH.gguf, or a folder")
    ],
    directory: Annotated[
        Path,
        typer.Argument(
            callback=folder_to_write, help="The folder for its files; correct files in it are kept"
        ),
    ],
    revision: Annotated[str | None, typer.Option(help="Revision of a hub model")] = None,
    pointer: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            callback=file_to_write,
            help="SOURCE is a slot's pointer: fetch the model in it into a folder below DIRECTORY, "
            "and write MOAA_MODEL and MOAA_REVISION to this file",
        ),
    ] = None,
) -> None:
    """Copy a model's files into a directory.

    An artifact's files are checked against its digests.

    \b
    Examples:
      moaa fetch s3://moaa/demo/dpo/1f0c… ./model
    """
    from moaa.commands import download

    if pointer is not None:
        download.fetch_pointed(source, directory, pointer)
    else:
        download.fetch(source, directory, revision)


@app.command(name="split-armorm")
def split_armorm(
    published: Annotated[Path, typer.Argument(help="The folder of the published ArmoRM model")],
    directory: Annotated[
        Path,
        typer.Argument(callback=folder_to_write, help="The folder for its body and its heads"),
    ],
) -> None:
    """Split ArmoRM into a body for engines and its heads.

    The labeller armorm needs both: no engine serves ArmoRM as a whole. Use the directory, or a copy
    of it on S3, as the source of a model with `task: embed`.

    \b
    Examples:
      moaa split-armorm ./ArmoRM-Llama3-8B-v0.1 ./armorm
    """
    from moaa.commands import download

    download.split_armorm(published, directory)
