"""Numbers as people read them. No unit stands alone on a line: the spaces within are no-break
spaces."""

from __future__ import annotations

from moaa.progress.screen import duration

NBSP = "\N{NO-BREAK SPACE}"


def count(n: float | None) -> str:
    """`12,345`; a dash where there is none."""
    return "–" if n is None else f"{n:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """`62.5 %` of 0.625; a dash where there is none."""
    return "–" if share is None else f"{100 * share:.{digits}f}{NBSP}%"


def seconds(s: float | None) -> str:
    """`0.4 s`, `58 s`, `2 min 05 s`."""
    if s is None:
        return "–"
    return f"{s:.1f}{NBSP}s" if s < 9.95 else duration(s).replace(" ", NBSP)


def number(value: float | None) -> str:
    """Three or four significant digits, without an exponent where one can do without: `1.284`,
    `0.0312`, `8e-07`."""
    if value is None:
        return "–"
    return f"{value:.4g}"
