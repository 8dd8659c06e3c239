"""Prints findings: a table on a terminal, otherwise one line each."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from moaa.preflight.finding import Finding
from moaa.progress.terminal import console, out

_STYLES = {"ok": "green", "FAIL": "bold red", "?": "yellow"}


def show(found: Sequence[Finding]) -> None:
    """Print all findings; those that are not ok with their fix."""
    if not sys.stdout.isatty():
        for each in found:
            fix = f"  fix: {each.fix}" if not each.ok and each.fix else ""
            out(f"{each.word:<4}  {each.check}: {each.detail}{fix}")
        return
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("", no_wrap=True)
    table.add_column("check", no_wrap=True)
    table.add_column("found", overflow="fold", ratio=5)
    table.add_column("fix", overflow="fold", ratio=4)
    for each in found:
        fix = each.fix if not each.ok else ""
        word = Text(each.word, style=_STYLES[each.word])
        table.add_row(word, Text(each.check), Text(each.detail), Text(fix))
    console().print(table)
