"""Line charts as inline SVG: no script, no plotting library, colours from the page's CSS variables."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

Scale = Callable[[float], float]

WIDTH, HEIGHT = 380, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 10, 10, 26
_SMOOTH_FROM = 24  # rows: below this the line itself is readable, above it noise hides the trend


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart."""

    label: str
    points: Sequence[tuple[float, float]]
    """(step, value), by rising step."""
    color: str = "var(--c1)"


def line_chart(
    series: Sequence[Series], *, description: str, from_zero: bool = False, logarithmic: bool = False
) -> Markup:
    """Draw the series over their steps; `description` is what a screen reader says.

    With `logarithmic` steps stand by their logarithm, and the axis names each step that has a point.
    A long series is drawn twice: its rows faintly, and over them their running mean.
    """
    series = [Series(s.label, [p for p in s.points if math.isfinite(p[1])], s.color) for s in series]
    points = [point for each in series for point in each.points]
    if not points:
        return Markup("")
    ys = [y for _, y in points]
    first, last = min(x for x, _ in points), max(x for x, _ in points)
    y_ticks = ticks(min(0.0, *ys) if from_zero else min(ys), max(ys), 4)
    x_ticks = sorted({x for x, _ in points}) if logarithmic else ticks(first, last, 5)
    to_x = (_log_scale if logarithmic else _scale)(first, last, LEFT, WIDTH - RIGHT)
    to_y = _scale(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    parts = [_axes(x_ticks, y_ticks, to_x, to_y)]
    parts += [_line(each, to_x, to_y) for each in series if each.points]
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(description)}">'
        f"{''.join(parts)}</svg>"
    )


def ticks(low: float, high: float, wanted: int) -> list[float]:
    """About `wanted` round numbers (1, 2 or 5 times a power of ten apart) that enclose `low` and `high`.

    >>> ticks(0.21, 0.76, 4)
    [0.2, 0.4, 0.6, 0.8]
    """
    if high <= low:
        span = abs(low) or 1.0
        low, high = low - span / 2, high + span / 2
    rough = (high - low) / max(wanted - 1, 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    digits = max(0, 1 - math.floor(math.log10(step)))
    return [round(index * step, digits) for index in range(first, last + 1)]


def smooth(values: Sequence[float], window: int) -> list[float]:
    """Centred running mean over at most `window` values, fewer at the ends."""
    half = window // 2
    spans = [values[max(0, i - half) : i + half + 1] for i in range(len(values))]
    return [sum(span) / len(span) for span in spans]


def short(value: float) -> str:
    """A number as an axis shows it: 1200 -> 1.2k, 0.30000001 -> 0.3."""
    for size, suffix in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.3g}{suffix}"
    return f"{value:.3g}"


def _scale(low: float, high: float, start: float, end: float) -> Scale:
    """The linear map from [low, high] to [start, end]."""
    factor = (end - start) / ((high - low) or 1.0)
    return lambda value: start + (value - low) * factor


def _log_scale(low: float, high: float, start: float, end: float) -> Scale:
    """The map from [low, high] to [start, end] that is linear in the logarithm."""
    linear = _scale(math.log(low), math.log(high), start, end)
    return lambda value: linear(math.log(value))


def _axes(x_ticks: list[float], y_ticks: list[float], to_x: Scale, to_y: Scale) -> str:
    lines = []
    for value in y_ticks:
        y = to_y(value)
        lines.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        lines.append(f'<text x="{LEFT - 6}" y="{y + 3.5:.1f}" text-anchor="end">{short(value)}</text>')
    for value in x_ticks:
        x = to_x(value)
        if LEFT - 0.5 <= x <= WIDTH - RIGHT + 0.5:
            lines.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}" text-anchor="middle">{short(value)}</text>')
    return "".join(lines)


def _line(series: Series, to_x: Scale, to_y: Scale) -> str:
    xs, ys = zip(*series.points, strict=True)
    last_x, last_y = series.points[-1]
    tip = f"<title>{escape(series.label)}: {short(last_y)} at step {short(last_x)}</title>"
    if len(ys) < _SMOOTH_FROM:
        return f'<g style="stroke:{series.color}">{tip}{_path(xs, ys, to_x, to_y, "line")}</g>'
    calm = smooth(ys, max(5, len(ys) // 12))
    return (
        f'<g style="stroke:{series.color}">{tip}{_path(xs, ys, to_x, to_y, "raw")}'
        f"{_path(xs, calm, to_x, to_y, 'line')}</g>"
    )


def _path(xs: Sequence[float], ys: Sequence[float], to_x: Scale, to_y: Scale, css: str) -> str:
    places = [f"{to_x(x):.1f},{to_y(y):.1f}" for x, y in zip(xs, ys, strict=True)]
    if len(places) == 1:
        places *= 2  # a path of one point would not be drawn; round line caps make two a dot
    return f'<path class="{css}" d="M{" L".join(places)}"/>'
