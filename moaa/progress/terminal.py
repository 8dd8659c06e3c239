"""The only place where text goes to a terminal.

Texts come from servers, models, data sets and logs. Characters that would command a terminal (move
the cursor, rename the window, change the direction of writing) become blanks.
"""

from __future__ import annotations

import re
import sys
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_COMMANDS = re.compile(
    r"[^\S\n\t ]|[\x00-\x08\x0b-\x1f\x7f-\x9f]"  # control characters, other white space
    r"|[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]"  # directions of writing
    r"|[\ud800-\udfff]"  # half a surrogate pair: no stream takes it
)


def printable(text: str) -> str:
    """Return the text without characters that would command a terminal."""
    return _COMMANDS.sub(" ", text)


def out(text: str) -> None:
    """Print a line (or lines) to standard output, for people."""
    _write(printable(text) + "\n")


def out_data(text: str) -> None:
    """Print text for programs: unchanged, unless it is shown on a terminal."""
    _write(printable(text) if sys.stdout.isatty() else text)


def console(file: IO[str] | None = None, **options: Any) -> Console:
    """Return rich's console. It prints every text as `printable` returns it.

    Without a terminal, lines are 200 columns wide: a pipe has no width.
    """
    from collections.abc import Iterable

    from rich.console import Console
    from rich.segment import Segment

    class Printable(Console):
        def render(self, *arguments: Any, **more: Any) -> Iterable[Segment]:
            for segment in super().render(*arguments, **more):
                text, style, control = segment
                yield segment if control else Segment(printable(text), style)

        def on_broken_pipe(self) -> None:
            raise BrokenPipeError  # rich itself would end the process

    stream = file or sys.stdout
    if not stream.isatty():
        options.setdefault("width", 200)
    return Printable(file=file, **options)


def _write(text: str) -> None:
    # Not `print`: Kubeflow's local runner replaces it by one that indents.
    sys.stdout.write(text)
    sys.stdout.flush()
