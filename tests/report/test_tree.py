"""The picture of the tree."""

import re
import xml.etree.ElementTree as ET

from r1pipe.report.tree import BOX_H, BOX_W, Node, depths, tree_svg

NODES = [
    Node("base", "pretrain", []),
    Node("zero", "rl", ["base"]),
    Node("traces", "sample", ["zero"], kind="dataset"),
    Node("sft", "sft", ["base", "traces"], ["sft · 3m 12s", "pass@1 0.720 ± 0.020"]),
]


def boxes(svg: str) -> dict[str, tuple[float, float]]:
    """Top left corner of each stage's box."""
    found = {}
    for group in ET.fromstring(svg).iter("g"):
        rect, name = group.find("rect"), group.find("text")
        assert rect is not None and name is not None
        found[str(name.text)] = (float(rect.get("x", "")), float(rect.get("y", "")))
    return found


def test_a_stage_stands_right_of_all_its_parents() -> None:
    """Depth is the longest way from a root, so `sft` is behind the traces although the base is its parent."""
    assert depths({node.name: node for node in NODES}) == {"base": 0, "zero": 1, "traces": 2, "sft": 3}


def test_no_two_boxes_overlap() -> None:
    """Twenty stages in two columns and one far out still have room."""
    many = [Node("root", "pretrain", []), *(Node(f"s{i}", "sft", ["root"]) for i in range(20)), *NODES]
    places = list(boxes(tree_svg(many)).values())
    assert len(places) == 25
    for i, (x, y) in enumerate(places):
        assert all(abs(x - u) >= BOX_W or abs(y - v) >= BOX_H for u, v in places[i + 1 :])


def test_every_edge_is_drawn_once_and_data_is_dashed() -> None:
    """base→zero, base→sft, zero→traces are checkpoints; traces→sft carries a dataset."""
    edges = re.findall(r'class="edge (\w+)"', tree_svg(NODES))
    assert sorted(edges) == ["checkpoint", "checkpoint", "checkpoint", "dataset"]


def test_an_edge_that_jumps_columns_goes_around_the_boxes_between() -> None:
    """The lane it takes through a column is no box's place."""
    svg = tree_svg(NODES)
    lanes = [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+) H", svg)]
    assert len(lanes) == 2, "base→sft passes the columns of zero and traces"
    for x, y in lanes:
        assert not any(
            left <= x < left + BOX_W and top <= y <= top + BOX_H for left, top in boxes(svg).values()
        )


def test_a_parent_from_outside_is_no_edge() -> None:
    """A path or a hub id is no node of the run."""
    assert "edge" not in tree_svg([Node("sft", "sft", ["org/model"])])
    assert tree_svg([]) == ""


def test_names_are_escaped() -> None:
    """A name cannot put markup into the page."""
    assert "<b>" not in tree_svg([Node("<b>", "sft", [])])
