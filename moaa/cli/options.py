"""Arguments and options that several commands take."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from moaa import __version__
from moaa.errors import RecipeError
from moaa.progress.messages import LEVEL_ENV, log, show


def recipe_file(text: str) -> Path:
    """Return the recipe's file: the path itself, or a recipe that comes with moaa, by its name."""
    from moaa.recipe.files import by_name

    return by_name(text, Path())


def sweep_file(text: str) -> Path:
    """Return the sweep's file: the path itself, or a sweep that comes with moaa, by its name."""
    from moaa.sweeps.document import SHIPPED

    if not text.strip():
        raise RecipeError("the path of the sweep is empty. Give a file, or a name: paper-tables")
    path, ours = Path(text), SHIPPED / f"{text}.yaml"
    return ours if not path.exists() and path.name == text and ours.exists() else path


def file_to_write(path: Path | None) -> Path | None:
    """Return a path to which a file can be written; the command makes missing folders.

    Raises BadParameter for a folder, and for a path below a file.
    """
    if path is not None:
        if path.is_dir():
            raise typer.BadParameter(f"{path} is a folder. Name a file in it.")
        folder_to_write(path.absolute().parent)
    return path


def folder_to_write(path: Path | None) -> Path | None:
    """Return the path of a folder that is there or can be made.

    Raises BadParameter for a file, and for a path below one.
    """
    if path is None:
        return None
    there = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not there.is_dir():
        raise typer.BadParameter(f"{there} is a file, and a folder is needed. Give another path.")
    return path


def pipeline_to_write(path: Path | None) -> Path | None:
    """Return a path for a compiled pipeline.

    Raises BadParameter if its name does not end like that of YAML, or as `file_to_write` does.
    """
    if path is not None and path.suffix not in (".yaml", ".yml"):
        raise typer.BadParameter(f"{path}: Kubeflow takes YAML. Write a name that ends in .yaml.")
    return file_to_write(path)


RecipeFile = Annotated[
    Path,
    typer.Argument(
        metavar="RECIPE",
        parser=recipe_file,
        help="A recipe's YAML file, or the name of one that comes with moaa: demo",
    ),
]
RunId = Annotated[
    str | None,
    typer.Argument(metavar="RUN", help="A run's id, see `moaa runs`. Default: the last run"),
]
OptionalRecipe = Annotated[
    Path | None,
    typer.Option(
        "--recipe",
        metavar="RECIPE",
        parser=recipe_file,
        help="Look in this recipe's store. Default: the store of the last run",
    ),
]
Sets = Annotated[
    list[str],
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="Override one field: --set dpo.beta=0.1 (repeat for more)",
    ),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="STAGE", help="Stop after this stage. Default: the recipe's last stage"),
]
Rounds = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, max=10, help="At most N rounds: the field rounds.n"),
]
Root = Annotated[
    str | None,
    typer.Option(metavar="S3", help="Look below this address: s3://BUCKET/PREFIX"),
]


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"moaa {__version__}")
        raise typer.Exit


def _set_debug(value: bool) -> None:
    if value:
        os.environ["MOAA_DEBUG"] = "1"


def _set_verbose(value: bool) -> None:
    if value:
        os.environ[LEVEL_ENV] = "DEBUG"
        show(logging.DEBUG)


def _set_quiet(value: bool) -> None:
    if value:
        show(logging.ERROR)


def _set_allow_files(value: bool) -> None:
    if value:
        os.environ["MOAA_ALLOW_FILES"] = "1"  # moaa.recipe.files


AllowFiles = Annotated[
    bool,
    typer.Option(
        "--allow-files",
        callback=_set_allow_files,
        help="Let the recipe use files outside of its folder. Only for a recipe you trust",
    ),
]
Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="Show the version and exit"
    ),
]
Debug = Annotated[
    bool, typer.Option("--debug", callback=_set_debug, help="Show the traceback of an error")
]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", callback=_set_verbose, help="Show more messages")
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", callback=_set_quiet, help="Show only errors and the result"),
]


class Commands(TyperGroup):
    """A group of commands that prints a message when Ctrl-C stops one: typer itself prints none."""

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen command. After Ctrl-C print that it was stopped."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            log.error("stopped")
            raise SystemExit(130) from None


class Command(TyperCommand):
    """A command whose help calls each value by a noun in capitals: `RECIPE`, not `{RECIPE} <Path>`.

    Typer would show braces around arguments, and Python's types.
    """

    def __init__(self, *given: Any, **more: Any) -> None:
        super().__init__(*given, **more)
        for parameter in self.params:
            parameter.metavar = parameter.metavar or str(parameter.name).upper()

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the arguments. A wrong value is shown with what it must be, in our words."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            from moaa.recipe.forms import in_words

            said = in_words(error.message)
            errors = getattr(error.__cause__, "errors", None)
            if errors and said.startswith("It must"):
                said = f"{errors()[0]['input']!r}. {said}"
            error.message = said if said.endswith(".") else f"{said}."
            raise

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the pieces of the line `Usage:`."""
        return [piece.strip("{}") for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the lists of arguments and options."""
        write = formatter.write_dl

        def write_plain(rows: Any, **more: Any) -> None:
            write(
                [(re.sub(r"^([A-Z]+) <.*>$", r"\1", name), about) for name, about in rows], **more
            )

        formatter.write_dl = write_plain
        super().format_options(ctx, formatter)


class _Application(typer.Typer):
    def command(self, *given: Any, **more: Any) -> Any:
        return super().command(*given, **{"cls": Command, **more})


def application(**more: Any) -> typer.Typer:
    """Return an application without completion, rich help or rich tracebacks: each slows down the
    start. `more`: further arguments of typer's."""
    return _Application(
        add_completion=False,
        cls=Commands,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        **more,
    )


def with_rounds(sets: list[str], rounds: int | None) -> list[str]:
    """Return the values of `--set`, followed by that of `--rounds`."""
    return sets if rounds is None else [*sets, f"rounds.n={rounds}"]
