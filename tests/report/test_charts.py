"""Line charts: round axes, finite paths, a running mean over noise."""

import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.report.charts import Series, line_chart, smooth, ticks


@pytest.mark.parametrize(
    ("low", "high", "wanted", "expected"),
    [
        (0.21, 0.76, 4, [0.2, 0.4, 0.6, 0.8]),
        (0, 130, 5, [0, 50, 100, 150]),
        (3, 3, 4, [1, 2, 3, 4, 5]),
        (-0.002, 0.004, 4, [-0.002, 0.0, 0.002, 0.004]),
    ],
)
def test_ticks_are_round_and_enclose(low: float, high: float, wanted: int, expected: list[float]) -> None:
    """1, 2 or 5 times a power of ten apart, from below the lowest to above the highest value."""
    assert ticks(low, high, wanted) == expected


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6), st.integers(2, 8))
def test_ticks_of_any_range(low: float, span: float, wanted: int) -> None:
    """There are never many more than were wanted, and they always enclose the range."""
    found = ticks(low, low + span, wanted)
    room = 1e-6 * max(span, abs(low))
    assert found[0] <= low + room and found[-1] >= low + span - room
    assert 2 <= len(found) <= 2 * wanted + 2


def test_the_running_mean_keeps_a_straight_line_straight() -> None:
    """Inside; at the ends the window is one-sided."""
    assert smooth([0, 1, 2, 3, 4], 3) == [0.5, 1, 2, 3, 3.5]


def test_a_chart_is_well_formed_and_shows_every_series() -> None:
    """Parsed as XML: one line for a short series, a faint and a strong one for a long one."""
    short = Series("loss", [(1, 2.0), (2, 1.0)])
    long = Series("reward <a>", [(i, 0.1 * i) for i in range(40)])
    root = ET.fromstring(line_chart([short, long], description='losses & "rewards"'))
    classes = [path.get("class") for path in root.iter("path")]
    assert classes == ["line", "raw", "line"]
    assert root.get("aria-label") == 'losses & "rewards"'


def test_higher_is_further_up_and_later_is_further_right() -> None:
    """SVG's y grows downwards; a chart's does not."""
    svg = line_chart([Series("x", [(0, 0.0), (10, 1.0)])], description="x")
    (x0, y0), (x1, y1) = [tuple(map(float, p.split(","))) for p in re.findall(r"[\d.]+,[\d.]+", svg)]
    assert x1 > x0 and y1 < y0


def test_what_is_not_finite_is_not_drawn() -> None:
    """One NaN must not empty the chart; nothing but NaN leaves no chart."""
    svg = line_chart([Series("x", [(0, 0.0), (1, float("nan")), (2, 1.0)])], description="x")
    assert "nan" not in svg.lower() and "inf" not in svg.lower()
    assert line_chart([Series("x", [(0, float("nan"))])], description="x") == ""


def test_counts_stand_by_their_logarithm() -> None:
    """100, 1,000 and 10,000 are as far apart, and each is named below."""
    points = [(100.0, 0.1), (1000.0, 0.2), (10000.0, 0.4)]
    drawn = ET.fromstring(str(line_chart([Series("a", points)], description="d", logarithmic=True)))
    path = next(each for each in drawn.iter() if each.tag.endswith("path"))
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+),", path.attrib["d"])]
    assert xs[1] - xs[0] == pytest.approx(xs[2] - xs[1], abs=0.2)
    named = [each.text for each in drawn.iter() if each.tag.endswith("text")]
    assert named[-3:] == ["100", "1k", "10k"]
