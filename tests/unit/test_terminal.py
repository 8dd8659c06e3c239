"""Texts of servers, models and logs command no terminal, and a closed one stops no stage."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import sys

import pytest
from rich.table import Table
from rich.text import Text

from moaa.pipelines.outcome import RunFailed
from moaa.progress.messages import log, say, show
from moaa.progress.progress import Progress
from moaa.progress.screen import Terminal, View
from moaa.progress.terminal import console, out, out_data, printable

EVIL = "\x1b]0;owned\x07 \x9b31m \u202eabc\u2066 \ud83d"
COMMANDS = ("\x1b", "\x07", "\x9b", "\u202e", "\u2066", "\ud83d")


def harmless(text: str) -> bool:
    return "abc" in text and not any(each in text for each in COMMANDS)


def test_text_for_people_holds_no_commands(capsys: pytest.CaptureFixture[str]) -> None:
    """Before, an error of a server or the log of a pod could rename the window."""
    show()
    out(f"prompts failed: {EVIL}")
    say(EVIL)
    log.error(str(RunFailed(EVIL)))
    shown = capsys.readouterr()
    assert harmless(shown.out)
    assert all(map(harmless, shown.err.splitlines()))


def test_tables_hold_no_commands_but_rich_s_own() -> None:
    stream = io.StringIO()
    shown = console(stream, force_terminal=True, color_system="truecolor", width=80)
    table = Table()
    table.add_column("run")
    table.add_row(Text(EVIL, style="red"))
    shown.print(table)
    text = stream.getvalue()
    assert "\x1b[31m" in text
    assert "owned" in text
    assert not any(each in text for each in COMMANDS[1:])
    assert "\x1b]0" not in text


def test_data_for_programs_is_unchanged_but_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "name: a\N{NO-BREAK SPACE}b\x9bc\n"
    out_data(text)
    assert capsys.readouterr().out == text
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    out_data(text)
    assert capsys.readouterr().out == printable(text) == "name: a b c\n"


def test_a_closed_pipe_stops_no_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before, BrokenPipeError took the place of what had ended the stage."""
    reader, writer = os.pipe()
    os.close(reader)
    closed = os.fdopen(writer, "w", buffering=1)
    monkeypatch.setattr(sys, "stderr", closed)
    show(logging.INFO)

    def stage() -> None:
        with Progress("generate", "conversations") as progress:
            progress.note("starting")
            say("on")
            raise ValueError("the stage's own error")

    with pytest.raises(ValueError, match="the stage's own error"):
        stage()
    view = View("generate", "conversations")
    screen = Terminal(closed)
    screen.show(view)
    screen.end(view, failed=True)
    with contextlib.suppress(BrokenPipeError):
        closed.close()
