"""Charts as HTML with inline SVG. Pure functions of numbers.

The browser stretches the drawing (`preserveAspectRatio="none"`, strokes that do not scale). Labels
are HTML next to it, so that text keeps its size on a phone and on paper.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from markupsafe import Markup

from moaa.report.words import number, percent

Points = Sequence[tuple[float, float]]


def line(
    points: Points,
    *,
    unit: str = "step",
    low: float | None = None,
    high: float | None = None,
    mark: float | None = None,
) -> Markup:
    """Return a curve over steps. Values that are not finite are left out.

    `low`, `high`: the y axis includes at least these. `mark`: a dashed level (chance, zero).
    """
    points = _thinned(sorted(point for point in points if all(map(math.isfinite, point))))
    if not points:
        return Markup()
    xs, ys = [x for x, _ in points], [y for _, y in points]
    every = [*ys, *(value for value in (low, high, mark) if value is not None)]
    ticks = _ticks(min(every), max(every))
    bottom, top = min(ticks[0], *every), max(ticks[-1], *every)

    def at(x: float, y: float) -> tuple[float, float]:
        left, right = xs[0], xs[-1]
        across = 100 * (x - left) / (right - left) if right > left else 50.0
        return across, 100 * (top - y) / (top - bottom)

    parts = [_level("grid", at(0, tick)[1]) for tick in ticks]
    if mark is not None:
        parts.append(_level("mark", at(0, mark)[1]))
    path = "L".join(f"{x:.2f} {y:.2f}" for x, y in (at(*point) for point in points))
    parts.append(Markup('<path class="curve" d="M{}"/>').format(path))
    if len(points) <= 80:
        dot = Markup('<path class="dot" d="M{:.2f} {:.2f}h0"><title>{}</title></path>')
        for x, y in points:
            parts.append(dot.format(*at(x, y), f"{unit} {number(x)}: {number(y)}"))
    span = Markup('<span style="top:{:.2f}%">{}</span>')
    labels = Markup().join(span.format(at(0, tick)[1], number(tick)) for tick in ticks)
    values, range_ = f"{number(ys[0])} to {number(ys[-1])}", f"{number(xs[0])} to {number(xs[-1])}"
    svg = _svg(Markup().join(parts), f"curve from {values} over {unit}s {range_}")
    return Markup(
        '<div class="plot"><div class="ys">{}</div>{}'
        '<div class="xs"><span>{}</span><span>{}</span><span>{}</span></div></div>'
    ).format(labels, svg, number(xs[0]), unit, number(xs[-1]))


def whiskers(
    points: Sequence[tuple[float, float, float | None, float | None]],
    *,
    unit: str,
    low: float | None = None,
    high: float | None = None,
    mark: float | None = None,
    shown: Callable[[float], str] = number,
) -> Markup:
    """Return a curve whose points (x, value, low, high) have intervals; None: no end is known.

    `low`, `high`: the y axis includes at least these. `mark`: a dashed level. `shown`: formats a
    value.
    """
    every = [y for _, *ends in points for y in ends if y is not None]
    every += [value for value in (low, high, mark) if value is not None]
    ticks = _ticks(min(every), max(every))
    bottom, top = min(ticks[0], *every), max(ticks[-1], *every)
    left, right = points[0][0] - 0.4, points[-1][0] + 0.4

    def at(x: float, y: float) -> tuple[float, float]:
        return 100 * (x - left) / (right - left), 100 * (top - y) / (top - bottom)

    parts = [_level("grid", at(0, tick)[1]) for tick in ticks]
    if mark is not None:
        parts.append(_level("mark", at(0, mark)[1]))
    path = "L".join(f"{x:.2f} {y:.2f}" for x, y in (at(x, y) for x, y, _, _ in points))
    parts.append(Markup('<path class="curve" d="M{}"/>').format(path))
    spread = Markup('<path class="spread" d="M{0:.2f} {1:.2f}V{2:.2f}"/>')
    dot = Markup('<path class="knot" d="M{:.2f} {:.2f}h0"><title>{}</title></path>')
    for x, y, under, over in points:
        ends = ""
        if under is not None and over is not None:
            parts.append(spread.format(at(x, y)[0], at(x, under)[1], at(x, over)[1]))
            ends = f", interval {shown(under)} to {shown(over)}"
        parts.append(dot.format(*at(x, y), f"{unit} {number(x)}: {shown(y)}{ends}"))
    span = Markup('<span style="top:{:.2f}%">{}</span>')
    labels = Markup().join(span.format(at(0, tick)[1], shown(tick)) for tick in ticks)
    step = Markup('<span style="left:{:.2f}%">{}</span>')
    names = Markup().join(step.format(at(x, y)[0], number(x)) for x, y, _, _ in points)
    said = "; ".join(f"{unit} {number(x)}: {shown(y)}" for x, y, _, _ in points)
    return Markup(
        '<div class="plot"><div class="ys">{}</div>{}<div class="xs at">{}</div></div>'
    ).format(labels, _svg(Markup().join(parts), said), names)


def histogram(
    edges: Sequence[float],
    counts: Sequence[int],
    *,
    highest: int,
    mark: float | None = None,
    what: str = "answers",
) -> Markup:
    """Return bars between successive edges.

    `highest`: the count with the full height, to compare several. `mark`: a line at the mean.
    """
    span = edges[-1] - edges[0]
    parts = [_level("grid", 100)]
    bar = Markup(
        '<rect class="bar" x="{:.2f}" y="{:.2f}" width="{:.2f}" height="{:.2f}">'
        "<title>{}</title></rect>"
    )
    for left, right, n in zip(edges, edges[1:], counts, strict=False):
        if n:
            height = 96 * n / max(highest, 1)
            x, width = 100 * (left - edges[0]) / span, 100 * (right - left) / span
            title = f"{number(left)} to {number(right)}: {n} {what}"
            at = (x + width * 0.06, 100 - height, width * 0.88, height)
            parts.append(bar.format(*at, title))
    if mark is not None:
        mean = Markup('<path class="mean" d="M{:.2f} 0V100"><title>mean {}</title></path>')
        parts.append(mean.format(100 * (mark - edges[0]) / span, number(mark)))
    return _svg(Markup().join(parts), f"histogram of {sum(counts)} {what}", "hist")


def segments(parts: Sequence[tuple[float, str, str]], total: float | None = None) -> Markup:
    """Return one bar of (value, css class, title) pieces. The rest up to `total` stays empty."""
    whole = total if total else sum(value for value, _, _ in parts)
    piece = Markup(
        '<rect class="{}" x="{:.2f}" y="0" width="{:.2f}" height="100"><title>{}</title></rect>'
    )
    drawn, left = [], 0.0
    for value, css, title in parts:
        if value > 0 and whole > 0:
            width = 100 * value / whole
            drawn.append(piece.format(css, left, max(width - 0.3, 0.4), title))
            left += width
    return _svg(Markup().join(drawn), "; ".join(title for _, _, title in parts), "strip")


def interval(
    value: float, low: float, high: float, *, mark: float | None = 0.5, label: str = ""
) -> Markup:
    """Return one row of a forest plot: a share with its interval, and a line at `mark`.

    `mark`: None for a number that no level divides into good and bad. `label`: the text for screen
    readers; default: the shares.
    """
    side, line = "even", Markup()
    if mark is not None:
        side = "above" if low > mark else "below" if high < mark else "even"
        line = Markup('<path class="mark" d="M{:.2f} 0V100"/>').format(100 * mark)
    drawn = Markup(
        '<path class="grid" d="M0 50H100"/>{line}'
        '<path class="whisker" d="M{l:.2f} 50H{h:.2f}"/>'
        '<path class="whisker" d="M{l:.2f} 30V70M{h:.2f} 30V70"/>'
        '<path class="point" d="M{v:.2f} 50h0"/>'
    ).format(line=line, l=100 * low, h=100 * high, v=100 * value)
    shares = f"{percent(value)}, interval {percent(low)} to {percent(high)}"
    return _svg(drawn, label or shares, f"interval {side}")


def difference(value: float, low: float, high: float, *, reach: float) -> Markup:
    """Return one row of a forest plot of differences: from -reach to reach, a line at 0."""
    ends = (min(max((x + reach) / (2 * reach), 0.0), 1.0) for x in (value, low, high))
    label = f"difference {number(value)}, interval {number(low)} to {number(high)}"
    return interval(*ends, label=label)


def scatter(points: Sequence[tuple[float, float, str]], *, mark: float) -> Markup:
    """Return points (x around 1, a share, a label), with lines at x = 1 and at `mark`."""
    xs = [x for x, _, _ in points]
    left, right = min(0.8, *xs) - 0.05, max(1.2, *xs) + 0.05

    def across(x: float) -> float:
        return 100 * (x - left) / (right - left)

    parts = [_level("grid", y) for y in (0, 25, 75, 100)]
    parts.append(_level("mark", 100 * (1 - mark)))
    parts.append(Markup('<path class="mark" d="M{:.2f} 0V100"/>').format(across(1)))
    dot = Markup('<path class="dot" d="M{:.2f} {:.2f}h0"><title>{}</title></path>')
    for x, y, label in points:
        parts.append(dot.format(across(x), 100 * (1 - y), f"{label}: {percent(y)}, {x:.2f} x"))
    name = Markup('<span class="point{}" style="left:{:.2f}%;top:{:.2f}%">{}</span>')
    names = Markup().join(
        name.format(" left" if across(x) > 55 else "", across(x), 100 * (1 - y), label)
        for x, y, label in points
    )
    svg = _svg(Markup().join(parts), f"{len(points)} win rates by relative length")
    span = Markup('<span style="top:{:.2f}%">{}</span>')
    labels = Markup().join(span.format(100 * (1 - y), percent(y, 0)) for y in (0.0, 0.5, 1.0))
    return Markup(
        '<div class="plot scatter"><div class="ys">{}</div><div class="area">{}{}</div>'
        '<div class="xs"><span>{:.2f} x</span><span>length</span><span>{:.2f} x</span></div></div>'
    ).format(labels, svg, names, left, right)


def matrix(n: int, p: dict[tuple[int, int], float]) -> Markup:
    """Return a shaded table of p(row better than column). `p` has one entry a pair."""
    head = Markup().join(Markup('<th scope="col">{}</th>').format(j + 1) for j in range(n))
    cell, empty = Markup('<td style="--p:{:.0f}%">{:.2f}</td>'), Markup("<td></td>")
    row = Markup('<tr><th scope="row">{}</th>{}</tr>')
    rows = []
    for i in range(n):
        values = [p.get((i, j), 1 - p[j, i] if (j, i) in p else None) for j in range(n)]
        cells = [empty if value is None else cell.format(100 * value, value) for value in values]
        rows.append(row.format(i + 1, Markup().join(cells)))
    return Markup(
        '<table class="matrix"><thead><tr><td></td>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(head, Markup().join(rows))


def _svg(content: Markup, label: str, css: str = "") -> Markup:
    return Markup(
        '<svg class="{}" viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        'aria-label="{}">{}</svg>'
    ).format(css, label, content)


def _level(css: str, y: float) -> Markup:
    return Markup('<path class="{}" d="M0 {:.2f}H100"/>').format(css, y)


def _ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Return round numbers from low to high, 1, 2 or 5 times a power of ten apart."""
    if high <= low:
        low, high = low - (abs(low) or 1) * 0.1, high + (abs(high) or 1) * 0.1
    raw = (high - low) / about
    power = 10 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [round(step * i, 12) for i in range(first, last + 1)]


def _thinned(points: Sequence[tuple[float, float]], most: int = 400) -> list[tuple[float, float]]:
    """Return at most `most` points, evenly chosen, with the first and the last."""
    if len(points) <= most:
        return list(points)
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]
