"""Numbers as text. They have no-break spaces, so that a unit stays with its number."""

from __future__ import annotations

from moaa.progress.screen import duration

NBSP = "\N{NO-BREAK SPACE}"


def count(n: float | None) -> str:
    """Return `12,345`; a dash for None."""
    return "–" if n is None else f"{n:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """Return `62.5 %` for 0.625; a dash for None."""
    return "–" if share is None else f"{100 * share:.{digits}f}{NBSP}%"


def seconds(s: float | None) -> str:
    """Return `0.4 s`, `58 s`, `2 min 05 s`; a dash for None."""
    if s is None:
        return "–"
    return f"{s:.1f}{NBSP}s" if s < 9.95 else duration(s).replace(" ", NBSP)


def number(value: float | None) -> str:
    """Return four significant digits: `1.284`, `0.0312`, `8e-07`; a dash for None."""
    return "–" if value is None else f"{value:.4g}"
