"""Texts that Markdown shows unchanged, and tables of them."""

from __future__ import annotations

import re
from collections.abc import Sequence


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: bool = True) -> str:
    """Return a table. `right`: all columns but the first are aligned to the right."""
    lines = [
        head,
        ["---", *["---:" if right else "---"] * (len(head) - 1)],
        *([plain(cell) for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """Return a text that Markdown shows unchanged, in one line and one cell."""
    return (
        re.sub(r"([\\`*_{}\[\]<>|#!~])", r"\\\1", " ".join(text.split()))
        .replace("\\<", "&lt;")
        .replace("\\>", "&gt;")
    )
