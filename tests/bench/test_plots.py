"""Plots of the benchmarks: well-formed files that show every figure."""

from xml.etree import ElementTree

import pytest

from bench.plots import curves, longest, stacked_bars
from r1pipe.report.charts import Series

SVG = "{http://www.w3.org/2000/svg}"


def texts(drawn: str) -> list[str]:
    """All that is written in a plot."""
    return ["".join(each.itertext()) for each in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


def test_curves() -> None:
    """A line for each series, the legend once for each of its names."""
    series = [Series("a", [(1, 0.1), (2, 0.2)], "red"), Series("a", [(1, 0.3), (2, 0.4)], "red")]
    drawn = curves(series, [("a <one>", "red")], title="Rewards")
    assert texts(drawn)[:2] == ["Rewards", "a <one>"]
    assert len(list(ElementTree.fromstring(drawn).iter(f"{SVG}path"))) == 2


def test_bars() -> None:
    """Parts stand one after the other; their sum is written behind them."""
    parts = (("x", "red"), ("y", "blue"))
    drawn = stacked_bars({"one": {"x": 1.0, "y": 3.0}, "two": {"y": 2.0}}, parts, title="Time", unit="s")
    boxes = [each.attrib for each in ElementTree.fromstring(drawn).iter(f"{SVG}rect")][len(parts) :]
    (x, y), two = boxes[:2], boxes[3]
    assert float(y["width"]) == pytest.approx(3 * float(x["width"]), abs=0.2)
    assert float(y["x"]) == pytest.approx(float(x["x"]) + float(x["width"]), abs=0.2)
    assert float(two["width"]) == pytest.approx(2 * float(x["width"]), abs=0.2)
    assert [text for text in texts(drawn) if text.endswith(" s")] == ["4 s", "2 s"]


def test_a_bar_that_would_hide_the_others_is_cut() -> None:
    """One of a hundred seconds beside one of two is drawn little longer than that, and says so."""
    assert longest([3.0, 2.0]) == 3.0
    assert longest([100.0, 2.0]) == 2.6
    assert longest([5.0]) == 5.0 and longest([]) == 0.0
    drawn = stacked_bars({"a": {"x": 100.0}, "b": {"x": 2.0}}, (("x", "red"),), title="Time", unit="s")
    assert "100 s, cut" in texts(drawn)
    widths = [float(each.attrib["width"]) for each in ElementTree.fromstring(drawn).iter(f"{SVG}rect")][1:]
    assert widths[0] / widths[1] == pytest.approx(1.3, abs=0.01)
