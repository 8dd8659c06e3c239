"""How a stage's progress is shown: a live view on a terminal, messages elsewhere."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from moaa.progress import messages
from moaa.progress.messages import say
from moaa.progress.terminal import console

if TYPE_CHECKING:
    from rich.console import RenderableType

_QUIET_S = 60.0
"""A log gets a line at least this often: a stage that waits must not look dead."""


@dataclass(frozen=True)
class View:
    """Everything that is shown at one moment. Rates are per second."""

    stage: str
    unit: str
    done: int = 0
    total: int | None = None
    rejected: int = 0
    rate: float | None = None
    elapsed: float = 0.0
    note: str = ""
    flight: Mapping[str, int] = field(default_factory=dict)
    tokens: Mapping[str, int] = field(default_factory=dict)
    token_rate: Mapping[str, float] = field(default_factory=dict)
    gauges: Mapping[str, float] = field(default_factory=dict)
    answered: Mapping[str, int] = field(default_factory=dict)
    """How many calls each model has answered: a long conversation needs many."""

    @property
    def eta(self) -> float | None:
        """Seconds until done; None if the total or the rate is unknown, or if no call is in flight:
        how long engines take to start does not follow from the rate."""
        idle = bool(self.flight) and not any(self.flight.values())
        if self.total is None or not self.rate or self.done >= self.total or idle:
            return None
        return (self.total - self.done) / self.rate

    @property
    def count(self) -> str:
        """`12/24 conversations`, or without the total if it is not known."""
        return (
            f"{self.done:,}/{self.total:,} {self.unit}"
            if self.total is not None
            else f"{self.done:,} {self.unit}"
        )


# The two ways to show it.


def screen() -> Log | Terminal:
    """Return the terminal if there is one: stderr, or the device in MOAA_TTY. Else a log."""
    device = os.environ.get("MOAA_TTY")
    stream: IO[str] | None = sys.stderr if sys.stderr is not None and sys.stderr.isatty() else None
    if stream is None and device:
        try:
            stream = open(device, "w", encoding="utf-8")  # noqa: SIM115, PTH123 - closed by Terminal.end
        except OSError:
            stream = None
        if stream is not None and not stream.isatty():
            stream.close()
            stream = None
    if stream is None or os.environ.get("TERM") == "dumb":
        return Log(float(os.environ.get("MOAA_PROGRESS_S") or 5))
    return Terminal(stream)


class Log:
    """Messages of one line: notes, the last line, and the counts every `every_s` seconds."""

    def __init__(self, every_s: float) -> None:
        self.every_s = every_s
        self._last, self._at = "", time.monotonic()
        self._lock = threading.Lock()

    def show(self, view: View) -> None:
        """Write the counts if they have changed, or if the last line is old."""
        text = line(view)
        if text != self._last or time.monotonic() - self._at >= _QUIET_S:
            self._write(text)

    def note(self, view: View) -> None:
        """Write the note."""
        self._write(f"{view.stage}  {view.note}")

    def end(self, view: View, *, failed: bool) -> None:
        """Write the last line."""
        self._write(last_line(view, failed=failed))

    def _write(self, text: str) -> None:
        with self._lock:
            say(text)
            self._last, self._at = text, time.monotonic()


class Terminal:
    """A few lines that are redrawn four times a second,
    and one line that stays when the stage ends."""

    every_s = 0.25

    def __init__(self, stream: IO[str]) -> None:
        from rich.live import Live

        self._stream = stream
        self._ours = stream is not sys.stderr
        self._console = console(stream, force_terminal=True, highlight=False, markup=False)
        # On its own terminal rich prints the output of others above the view.
        redirect = not self._ours
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=redirect,
            redirect_stderr=redirect,
        )
        with suppress(OSError, ValueError):
            self._live.start()
            # A stage that is killed must not leave a terminal without a cursor.
            self._console.show_cursor(True)
        if self._ours:
            messages.above_view = self._print

    def show(self, view: View) -> None:
        """Redraw the view."""
        with suppress(OSError, ValueError):  # the terminal is gone: the stage continues
            self._live.update(panel(view), refresh=True)

    def note(self, view: View) -> None:
        """Do nothing: the next picture shows the note."""

    def end(self, view: View, *, failed: bool) -> None:
        """Remove the view and print the last line."""
        messages.above_view = None
        last = last_line(view, failed=failed)
        # The display must never decide what is recorded.
        with suppress(OSError, ValueError):
            self._live.stop()
            self._console.print(last, style="red" if failed else None, soft_wrap=True)
        if self._ours:
            with suppress(OSError, ValueError):
                self._stream.close()

    def _print(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._console.print(text, soft_wrap=True)


# Pure: a view as text.


def line(view: View) -> str:
    """Return one line of a log: `generate  12/24 conversations  1.4/s  ETA 9 s  rejected 0`."""
    parts = [view.stage]
    if view.done or view.rate is not None or view.flight or not view.note:
        parts.append(view.count)
        if view.rate is not None:
            parts.append(per_time(view.rate))
        if view.eta is not None:
            parts.append(f"ETA {duration(view.eta)}")
        parts += [f"{name} {value:.4g}" for name, value in view.gauges.items()]
        if calls := sum(view.answered.values()):
            parts.append(f"{calls:,} calls answered")
        flights = [f"{m} {n}{_speed(view, m)}" for m, n in sorted(view.flight.items()) if n]
        if flights:
            parts.append("in flight: " + ", ".join(flights))
        parts.append(f"rejected {view.rejected}")
    if view.note:
        parts.append(view.note)
    return "  ".join(parts)


def last_line(view: View, *, failed: bool) -> str:
    """Return the line that stays after the stage: what was done, how long it took, the tokens."""
    parts = [
        view.stage,
        f"{'stopped at' if failed else 'done:'} {view.count} in {duration(view.elapsed)}",
    ]
    parts += [f"{model} {n:,} tokens" for model, n in sorted(view.tokens.items())]
    parts += [f"{name} {value:.4g}" for name, value in view.gauges.items()]
    if view.rejected:
        parts.append(f"rejected {view.rejected}")
    return "  ".join(parts)


def panel(view: View) -> RenderableType:
    """Return the live view: a bar with counts, rate and ETA; one line for each model; the note."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    def indented(item: RenderableType) -> RenderableType:
        return Padding(item, (0, 0, 0, 2))

    head = Table.grid(padding=(0, 2))
    bar = ProgressBar(
        total=view.total,
        completed=view.done,
        width=28,
        pulse=view.total is None,
        animation_time=view.elapsed,
    )
    head.add_row(Text(view.stage, style="bold"), bar, Text(view.count, no_wrap=True))
    pace = [per_time(view.rate)] if view.rate is not None else []
    pace += [f"ETA {duration(view.eta)}"] if view.eta is not None else []
    rows: list[RenderableType] = [
        head,
        indented(Text("  ".join([*pace, f"elapsed {duration(view.elapsed)}"]), style="cyan")),
    ]
    if view.rejected:
        rows.append(indented(Text(f"rejected {view.rejected}", style="yellow")))
    models = Table.grid(padding=(0, 2))
    for model in sorted({*view.flight, *view.tokens}):
        models.add_row(
            Text(model, style="dim"),
            Text(f"{view.answered.get(model, 0):,} calls", justify="right", no_wrap=True),
            Text(f"{view.flight.get(model, 0)} in flight", justify="right", no_wrap=True),
            Text(f"{view.token_rate.get(model, 0):,.0f} tokens/s", justify="right"),
            Text(f"{view.tokens.get(model, 0):,} tokens", style="dim", justify="right"),
        )
    if models.row_count:
        rows.append(indented(models))
    if view.gauges:
        rows.append(
            indented(Text("  ".join(f"{name} {value:.4g}" for name, value in view.gauges.items())))
        )
    if view.note:
        rows.append(indented(Text(view.note, style="dim", overflow="ellipsis", no_wrap=True)))
    return Group(*rows)


def duration(seconds: float) -> str:
    """Return seconds in words: `9 s`, `2 min 05 s`, `3 h 20 min`, `2 d 4 h`."""
    s = round(seconds)
    if s < 60:
        return f"{s} s"
    if s < 3600:
        return f"{s // 60} min {s % 60:02d} s"
    if s < 86_400:
        return f"{s // 3600} h {s % 3600 // 60:02d} min"
    return f"{s // 86_400} d {s % 86_400 // 3600} h"


def per_time(rate: float) -> str:
    """Return a rate in the best unit: `1.4/s`, `12/min`, `3.0/h`."""
    factor, unit = next(
        ((f, u) for f, u in ((1, "s"), (60, "min")) if rate * f >= 0.95), (3600, "h")
    )
    value = rate * factor
    return f"{value:,.0f}/{unit}" if value >= 10 else f"{value:.1f}/{unit}"


def _speed(view: View, model: str) -> str:
    speed = view.token_rate.get(model)
    return f" ({speed:,.0f} tokens/s)" if speed else ""
