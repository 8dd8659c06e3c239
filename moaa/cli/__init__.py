"""The command line: `moaa --help`.

__init__   the command `moaa`, and how it ends
options    arguments and options that several commands take
pipeline   run, evaluate, submit, compile, sweep
results    runs, report
recipes    recipe check, show, plan, helm-values
models     ask, preflight, fetch
serving    gateway, promote, rollback, models
gate       gate
retrain    retrain

These files have names, options and help. The work is in `moaa.commands`, which is imported when a
command runs, so that `moaa --help` is fast.
"""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from moaa.cli import gate, models, pipeline, recipes, results, retrain, serving
from moaa.cli.options import AllowFiles, Debug, Quiet, Verbose, Version, application
from moaa.errors import MoaaError, readable
from moaa.progress.messages import log, show
from moaa.progress.terminal import printable

app = application()
for part in (pipeline.app, results.app, models.app, gate.app, retrain.app, serving.app):
    app.registered_commands.extend(part.registered_commands)
app.add_typer(recipes.app, name="recipe")


@app.callback()
def moaa(
    debug: Debug = False,
    verbose: Verbose = False,
    quiet: Quiet = False,
    allow_files: AllowFiles = False,
    version: Version = False,
) -> None:
    """Align a small model with a committee of open models (Mixture of Agents Alignment).

    \b
    Examples:
      moaa run demo              # the whole pipeline on this machine
      moaa recipe check my.yaml  # every mistake in a recipe, each with its line

    `demo` is a recipe that comes with moaa; `moaa recipe list` shows all of them.
    """


def _flags_first(arguments: list[str]) -> list[str]:
    """Return the arguments with --debug, -v, -q and --allow-files first:
    they may follow a command's name."""
    flags = {"--debug", "-v", "--verbose", "-q", "--quiet", "--allow-files"}
    return sorted(arguments, key=lambda argument: argument not in flags)


def _show_bug(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    sys.stderr.write(printable("".join(traceback.format_exception(kind, error, trace))))


def main() -> None:
    """Run the command line.

    An error that a user can correct prints its message. The exit status is then 1, or 75 if an
    outside fault ended a run that may succeed on another try. --debug adds the traceback.
    """
    show()
    sys.excepthook = _show_bug
    try:
        app(prog_name="moaa", args=_flags_first(sys.argv[1:]))
    except MoaaError as error:
        if os.environ.get("MOAA_DEBUG"):
            raise
        log.error(str(error))
        sys.exit(error.exit_status)
    except BrokenPipeError:
        # The reader of our output is gone (`moaa … | head`). Python's own flush at exit must not
        # fail because of it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        if (known := readable(error)) is error:
            raise
        log.error(str(known))
        sys.exit(1)
