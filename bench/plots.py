"""Plots as SVG files: r1pipe's line charts, and stacked bars, with a legend and colours of their own."""

from collections.abc import Mapping, Sequence

from markupsafe import Markup, escape

from r1pipe.report.charts import WIDTH, Series, line_chart, short, ticks

_STYLE = (
    "svg{background:#fff}text{font:11px system-ui,sans-serif;fill:#676c76}.ink{fill:#1d1f23}"
    ".grid{stroke:#e4e2dd;stroke-width:1}.chart path{fill:none;stroke:inherit;stroke-linejoin:round}"
    ".chart .line{stroke-width:1.6}.chart .raw{stroke-width:1;opacity:.2}"
)
_LINE, _BAR, _LEFT = 16, 22, 118
Part = tuple[str, str]
"""The name of what is drawn, and its colour."""


def curves(series: Sequence[Series], legend: Sequence[Part], *, title: str, logarithmic: bool = False) -> str:
    """Lines over steps, or with `logarithmic` over counts; one colour may have several lines."""
    chart = str(line_chart(series, description=title, logarithmic=logarithmic))
    top = _LINE * (1 + len(legend)) + 10
    placed = chart.replace("<svg ", f'<svg y="{top}" width="{WIDTH}" height="190" ', 1)
    return _file(WIDTH, top + 190, title, legend, placed)


def stacked_bars(
    bars: Mapping[str, Mapping[str, float]], parts: Sequence[Part], *, title: str, unit: str
) -> str:
    """A bar for each name, made of its parts in order; the sum stands behind it.

    One that would leave the others no length is drawn shorter than it is, and said to be.
    """
    sums = {name: sum(bar.values()) for name, bar in bars.items()}
    most = longest(list(sums.values()))
    marks = ticks(0.0, most, 5)
    top, width = _LINE * (1 + len(parts)) + 14, WIDTH - _LEFT - 66
    bottom = top + _BAR * len(bars)

    def x(value: float) -> float:
        return _LEFT + width * value / (marks[-1] or 1.0)

    drawn = [
        f'<line class="grid" x1="{x(m):.1f}" x2="{x(m):.1f}" y1="{top}" y2="{bottom}"/>'
        f'<text x="{x(m):.1f}" y="{bottom + 14}" text-anchor="middle">{short(m)}</text>'
        for m in marks
    ]
    for i, (name, bar) in enumerate(bars.items()):
        y, at = top + i * _BAR, 0.0
        drawn_as = min(1.0, most / (sums[name] or 1.0))
        drawn.append(
            f'<text class="ink" x="{_LEFT - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
        )
        for part, color in parts:
            value = bar.get(part, 0.0)
            length = value * drawn_as
            drawn.append(
                f'<rect x="{x(at):.1f}" y="{y + 4}" width="{x(at + length) - x(at):.1f}" height="{_BAR - 8}" '
                f'fill="{color}"><title>{escape(part)}: {short(value)} {escape(unit)}</title></rect>'
            )
            at += length
        told = f"{short(sums[name])} {escape(unit)}{', cut' if drawn_as < 1 else ''}"
        drawn.append(f'<text x="{x(at) + 5:.1f}" y="{y + 14}">{told}</text>')
    return _file(WIDTH, bottom + 24, title, parts, "".join(drawn))


def longest(sums: Sequence[float]) -> float:
    """The length of the longest bar: the largest sum, unless it is more than four times all others.

    >>> longest([60.0, 5.0, 2.0])
    6.5
    """
    most, *others = sorted(sums, reverse=True) or [0.0]
    return 1.3 * others[0] if others and most > 4 * others[0] > 0 else most


def _file(width: int, height: float, title: str, legend: Sequence[Part], drawn: str) -> str:
    lines = [f'<text class="ink" x="8" y="{_LINE}">{escape(title)}</text>']
    for i, (name, color) in enumerate(legend):
        y = _LINE * (i + 2)
        lines.append(f'<rect x="8" y="{y - 9}" width="10" height="10" rx="2" fill="{color}"/>')
        lines.append(f'<text x="23" y="{y}">{escape(name)}</text>')
    return str(
        Markup(
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height:g}" width="{2 * width}" '
            f'role="img"><style>{_STYLE}</style>{"".join(lines)}{drawn}</svg>\n'
        )
    )
