"""YAML that remembers where every key and value was written, and reports every problem instead of the first.

Plain scalars are read by the core schema of YAML 1.2. PyYAML follows YAML 1.1, in which `1e-6` is a string,
`no` is False, `010` is eight and `12:30` is 750; each of these has silently ruined somebody's training run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

Path = tuple[str, ...]
"""The keys that lead to a value; an index into a list is written as a string too."""


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """Where something was written; an override has no line."""

    line: int
    column: int
    source: str

    def __str__(self) -> str:
        return f"{self.source}:{self.line}:{self.column}" if self.line else self.source


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing to put right."""

    place: Place
    text: str

    def __str__(self) -> str:
        return f"{self.place}: {self.text}"


@dataclass
class MarkedDocument:
    """A YAML document: plain data, and the place of each part of it."""

    source: str
    data: Any = None
    keys: dict[Path, Place] = field(default_factory=dict)
    values: dict[Path, Place] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def has(self, path: Path) -> bool:
        """Whether anything was written there."""
        return path in self.values

    def known(self, path: Path) -> Path:
        """Return the longest beginning of `path` that was written."""
        while path and path not in self.values:
            path = path[:-1]
        return path

    def key(self, path: Path) -> Place:
        """Return the place of the key that ends `path`, or of the nearest one above it."""
        path = self.known(path)
        return self.keys.get(path) or self.value(path)

    def value(self, path: Path) -> Place:
        """Return the place of the value at `path`, or of the nearest one above it."""
        return self.values.get(self.known(path), Place(1, 1, self.source))

    def set(self, override: str) -> None:
        """Apply `dotted.key=value`, the value being YAML; a mistake in it becomes a problem."""
        place = Place(0, 0, f"--set {override}")
        dotted, equals, text = override.partition("=")
        path = tuple(dotted.strip().split("."))
        if not equals or not all(path):
            self.problems.append(Problem(place, "write it as dotted.key=value, e.g. stages.zero.steps=20"))
            return
        value = parse(text, place.source)
        if value.problems:
            self.problems.append(Problem(place, value.problems[0].text))
        elif complaint := _assign(self.data, path, value.data):
            self.problems.append(Problem(place, complaint))
        else:
            for end in range(1, len(path) + 1):
                self.keys.setdefault(path[:end], place)
                self.values.setdefault(path[:end], place)
            self._forget(path)
            self.keys[path] = self.values[path] = place
            self.values |= {path + below: place for below in value.values}

    def _forget(self, path: Path) -> None:
        for marks in (self.keys, self.values):
            for below in [each for each in marks if each[: len(path)] == path]:
                del marks[below]


def parse(text: str, source: str) -> MarkedDocument:
    """Read one document; what is wrong with it is in `problems`, and `data` holds what could be read."""
    document = MarkedDocument(source)
    try:
        # BaseLoader resolves nothing, so that an explicit tag is the only tag there is.
        node = yaml.compose(text, Loader=yaml.BaseLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(mark.line + 1, mark.column + 1, source) if mark else Place(1, 1, source)
        document.problems.append(Problem(place, f"not YAML: {error.problem or error.context}"))
    except yaml.YAMLError as error:  # a character that YAML does not allow
        document.problems.append(Problem(Place(1, 1, source), f"not YAML: {error}".replace("\n", " ")))
    else:
        if node is not None:
            document.data = _Reader(document).read(node, ())
    return document


_TAGS = {f"tag:yaml.org,2002:{kind}" for kind in ("str", "seq", "map")}


class _Reader:
    """Turns nodes into data, and fills in the document's places and problems."""

    def __init__(self, document: MarkedDocument) -> None:
        self._document = document
        self._open: set[int] = set()

    def read(self, node: yaml.Node, path: Path) -> Any:
        self._document.values[path] = self._place(node)
        if id(node) in self._open:
            self._problem(node, "this alias stands inside what it stands for")
            return None
        self._open.add(id(node))
        try:
            return self._read(node, path)
        finally:
            self._open.discard(id(node))

    def _read(self, node: yaml.Node, path: Path) -> Any:
        if node.tag not in _TAGS:
            self._problem(node, f"the tag {node.tag} means nothing here; write plain YAML")
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if isinstance(node, yaml.SequenceNode):
            return [self.read(each, (*path, str(index))) for index, each in enumerate(node.value)]
        return self._mapping(node, path)

    def _mapping(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        own: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key, value in self._pairs(node):
            if key.value == "<<" and key.style is None:
                merged = self._merged(value, path) | merged
                continue
            at = (*path, key.value)
            if key.value in own:
                first = self._document.keys[at].line
                self._problem(key, f"'{'.'.join(at)}' is written twice; line {first} has it already")
            self._document.keys[at] = self._place(key)
            own[key.value] = self.read(value, at)
        return merged | own

    def _pairs(self, node: yaml.Node) -> Iterator[tuple[yaml.ScalarNode, yaml.Node]]:
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode):
                yield key, value
            else:
                self._problem(key, "a key must be a plain word")

    def _merged(self, node: yaml.Node, path: Path) -> dict[str, Any]:
        """Read what `<<: *anchor` or `<<: [*one, *two]` brings in; the first to name a key wins."""
        merged: dict[str, Any] = {}
        for each in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            if isinstance(each, yaml.MappingNode):
                merged = self.read(each, path) | merged
            else:
                self._problem(each, "'<<' merges mappings only, e.g. <<: *defaults")
        return merged

    def _place(self, node: yaml.Node) -> Place:
        return Place(node.start_mark.line + 1, node.start_mark.column + 1, self._document.source)

    def _problem(self, node: yaml.Node, text: str) -> None:
        self._document.problems.append(Problem(self._place(node), text))


_CORE_SCHEMA = (
    (re.compile(r"|~|null|Null|NULL"), lambda text: None),
    (re.compile(r"true|True|TRUE"), lambda text: True),
    (re.compile(r"false|False|FALSE"), lambda text: False),
    (re.compile(r"[-+]?[0-9]+"), int),
    (re.compile(r"0o[0-7]+"), lambda text: int(text, 8)),
    (re.compile(r"0x[0-9a-fA-F]+"), lambda text: int(text, 16)),
    (re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?"), float),
)
"""Infinities and NaN are left out: no setting means them, and they have no place in a fingerprint."""


def _scalar(node: yaml.ScalarNode) -> Any:
    if node.style is not None:  # quoted or a block: text, whatever it looks like
        return node.value
    return next((read(node.value) for form, read in _CORE_SCHEMA if form.fullmatch(node.value)), node.value)


def _assign(data: Any, path: Path, value: Any) -> str | None:
    """Put `value` at `path`, making mappings on the way; return what stands in the way, if anything does.

    A bare word on the way is the name of what it stands for: `engine: vllm` is `engine: {name: vllm}`.
    """
    for depth, key in enumerate(path):
        at: Any = int(key) if isinstance(data, list) and key.isdecimal() else key
        if not isinstance(data, dict) and not (isinstance(data, list) and at in range(len(data))):
            above = ".".join(path[:depth]) or "the recipe"
            return f"'{above}' has no place for '{key}'"
        if depth == len(path) - 1:
            data[at] = value
            return None
        below = data.get(at) if isinstance(data, dict) else data[at]
        if below is None or isinstance(below, str):
            below = data[at] = {} if below is None else {"name": below}
        data = below
    return None
