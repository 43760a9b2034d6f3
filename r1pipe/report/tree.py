"""The tree of stages as a picture: boxes in columns by depth, drawn as SVG.

Layered drawing after Sugiyama, Tagawa and Toda (1981): a stage stands one column right of the last of its
parents; an edge that jumps columns is led through a narrow free lane in each; rows are ordered so that few
edges cross.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup, escape

BOX_W, BOX_H = 172, 66
GAP_X, GAP_Y = 44, 20
LANE = 16
"""Height of the lane an edge takes through a column it only passes."""
_SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Node:
    """One stage in the picture."""

    name: str
    verb: str
    parents: Sequence[str]
    """Names of other nodes; those that are not drawn are left out."""
    lines: Sequence[str] = ()
    """Up to two lines under the name: what it cost, how it scored."""
    state: str = "done"
    """As a stage's."""
    kind: str = "checkpoint"
    """A dataset is drawn with a dashed outgoing edge."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """A place in a column: a stage, or an edge that passes."""

    name: str
    passing_to: str = ""

    @property
    def height(self) -> int:
        return LANE if self.passing_to else BOX_H


def tree_svg(nodes: Sequence[Node]) -> Markup:
    """Draw the nodes and the edges between them."""
    if not nodes:
        return Markup("")
    by_name = {node.name: node for node in nodes}
    chains = _chains(by_name, depths(by_name))
    columns = _ordered(chains, depths(by_name))
    places, height = _places(columns)
    width = len(columns) * (BOX_W + GAP_X) - GAP_X
    edges = [
        _edge([places[cell] for cell in chain], by_name[chain[0].name]) for chain in chains if len(chain) > 1
    ]
    boxes = [_box(node, *places[_Cell(node.name)]) for node in nodes]
    return Markup(
        f'<svg class="tree" viewBox="-4 -4 {width + 8} {height + 8}" style="min-width:{width * 0.72:.0f}px" '
        'role="img" aria-label="The stages and what each was made from">'
        f"{''.join(edges)}{''.join(boxes)}</svg>"
    )


def depths(nodes: Mapping[str, Node]) -> dict[str, int]:
    """Each node's column: 0 without parents, else one more than its deepest parent."""
    known: dict[str, int] = {}

    def depth(name: str) -> int:
        if name not in known:
            above = [depth(parent) for parent in nodes[name].parents if parent in nodes]
            known[name] = max(above, default=-1) + 1
        return known[name]

    for name in nodes:
        depth(name)
    return known


def _chains(nodes: Mapping[str, Node], column: Mapping[str, int]) -> list[list[_Cell]]:
    """Every edge as its cells from parent to child, and every node without parents as a chain of one."""
    chains = []
    for node in nodes.values():
        parents = [name for name in node.parents if name in nodes]
        chains += [
            [
                _Cell(parent),
                *(_Cell(f"{parent}@{at}", node.name) for at in range(column[parent] + 1, column[node.name])),
                _Cell(node.name),
            ]
            for parent in dict.fromkeys(parents)
        ]
        if not parents:
            chains.append([_Cell(node.name)])
    return chains


def _ordered(chains: list[list[_Cell]], column: Mapping[str, int]) -> list[list[_Cell]]:
    """Columns of cells, each ordered by the mean place of its cells' neighbours (barycentre sweeps)."""
    columns: list[list[_Cell]] = [[] for _ in range(max(column.values()) + 1)]
    neighbours: dict[_Cell, list[_Cell]] = {}
    for chain in chains:
        first = column[chain[0].name]
        for offset, cell in enumerate(chain):
            if cell not in neighbours:
                neighbours[cell] = []
                columns[first + offset].append(cell)
        for left, right in pairwise(chain):
            neighbours[left].append(right)
            neighbours[right].append(left)
    place = {cell: float(row) for cells in columns for row, cell in enumerate(cells)}

    def barycentre(cell: _Cell) -> float:
        around = neighbours[cell]
        return sum(place[other] for other in around) / len(around) if around else place[cell]

    for sweep in range(_SWEEPS):
        for cells in columns if sweep % 2 == 0 else reversed(columns):
            cells.sort(key=barycentre)
            place.update({cell: row - len(cells) / 2 for row, cell in enumerate(cells)})
    return columns


def _places(columns: list[list[_Cell]]) -> tuple[dict[_Cell, tuple[float, float]], float]:
    """Top left corner of every cell, columns centred, and the height of the whole."""
    heights = [sum(cell.height for cell in cells) + GAP_Y * (len(cells) - 1) for cells in columns]
    tallest = max(heights)
    places = {}
    for index, (cells, height) in enumerate(zip(columns, heights, strict=True)):
        top = (tallest - height) / 2
        for cell in cells:
            places[cell] = (float(index * (BOX_W + GAP_X)), top)
            top += cell.height + GAP_Y
    return places, tallest


def _edge(corners: list[tuple[float, float]], parent: Node) -> str:
    """A smooth line from the parent's right side through its lanes to the child's left side."""
    x, y = corners[0][0] + BOX_W, corners[0][1] + BOX_H / 2
    path = [f"M{x:.0f} {y:.1f}"]
    for index, (left, top) in enumerate(corners[1:], start=1):
        last = index == len(corners) - 1
        to_y = top + (BOX_H if last else LANE) / 2
        path.append(f"C{x + GAP_X / 2:.0f} {y:.1f} {left - GAP_X / 2:.0f} {to_y:.1f} {left:.0f} {to_y:.1f}")
        x, y = left, to_y
        if not last:
            x += BOX_W
            path.append(f"H{x:.0f}")
    return f'<path class="edge {parent.kind}" d="{" ".join(path)}"/>'


def _box(node: Node, x: float, y: float) -> str:
    rows = [f'<text class="name" x="{x + 12:.0f}" y="{y + 21:.1f}">{escape(_cut(node.name, 20))}</text>']
    rows += [
        f'<text class="fact" x="{x + 12:.0f}" y="{y + 38 + 15 * row:.1f}">{escape(_cut(line, 29))}</text>'
        for row, line in enumerate(node.lines[:2])
    ]
    return (
        f'<g class="node {escape(node.verb)} {escape(node.state)}"><title>{escape(node.name)} '
        f"({escape(node.verb)}, {escape(node.state)})</title>"
        f'<rect x="{x:.0f}" y="{y:.1f}" width="{BOX_W}" height="{BOX_H}" rx="8"/>'
        f'<rect class="stripe" x="{x:.0f}" y="{y + 8:.1f}" width="4" height="{BOX_H - 16}" rx="2"/>'
        f"{''.join(rows)}</g>"
    )


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else text[: most - 1] + "…"
