"""What docs/architecture.md says of the code's shape, read off the code: imports by `ast`, nothing is run."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

GROUPS: dict[str, set[str]] = {
    "foundation": {
        "artifact", "batches", "card", "checkpoint", "conversation", "errors", "external", "fingerprint",
        "hints", "hub", "integrity", "jsonl", "machine", "manifest", "marked", "parallel", "prompting",
        "recipe", "reporting", "shipped", "stage", "text", "watchdog", "zstd",
    },
    "rooms": {"curate", "measure", "rewards", "rollout", "tasks", "train", "verify", "world"},
    "stages": {"stages"},
    "pipeline": {"children", "pipeline", "plan", "run", "worker"},
    "telling": {"columns", "lines", "output", "report", "views"},
    "command line": {"__main__", "cli", "dryrun", "inspection", "verbs"},
}  # fmt: skip
"""Every module and package, by the group it belongs to."""

ARROWS: dict[str, set[str]] = {
    "foundation": set(),
    "rooms": {"foundation"},
    "stages": {"foundation", "rooms"},
    "pipeline": {"foundation", "stages"},
    "telling": {"foundation"},
    "command line": {"foundation", "rooms", "stages", "pipeline", "telling"},
}
"""What a group may import besides itself."""

KNOW_THE_STAGES = {"r1pipe.cli", "r1pipe.dryrun", "r1pipe.inspection", "r1pipe.pipeline", "r1pipe.verbs"}

HEAVY = {
    "accelerate", "datasets", "numpy", "pandas", "peft", "ray", "safetensors", "tokenizers", "torch",
    "transformers", "trl", "vllm",
}  # fmt: skip
HEAVY_ROOMS = ("r1pipe.train.", "r1pipe.rollout.", "r1pipe.tasks.source", "r1pipe.world.tokenizer", "stages.")
"""Where something heavy may be imported at all; outside of train/ and rollout/ only when it is needed."""
ON_ARRAYS = {
    f"r1pipe.curate.{name}"
    for name in (
        "contamination", "curation", "datacard", "ledger", "looking", "near", "picking", "reading", "table",
        "words",
    )
}  # fmt: skip
"""Modules that are numpy through and through; a stage imports them when it runs."""


@dataclass(frozen=True)
class Import:
    """One import statement that is carried out when the program runs."""

    target: str
    """The module, e.g. `r1pipe.jsonl` or `torch.nn`."""
    late: bool
    """Whether it stands in a function."""
    line: int


@cache
def sources() -> dict[str, Path]:
    """Every module of the two packages, by its full name."""
    paths = [*(ROOT / "r1pipe").rglob("*.py"), *(ROOT / "stages").rglob("*.py")]
    return {_name(path): path for path in paths}


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def tree(name: str) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(sources()[name].read_text(encoding="utf-8"))


def imports(name: str) -> list[Import]:
    """What a module imports; what is for the type checker alone is left out."""
    return list(_imports(tree(name), late=False))


def _imports(node: ast.AST, *, late: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            continue
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, late, child.lineno) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, "imports are written in full"
            yield from (Import(_module(child.module or "", a.name), late, child.lineno) for a in child.names)
        inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        yield from _imports(child, late=late or inside)


def _module(package: str, name: str) -> str:
    """`from r1pipe import jsonl` names a module, `from r1pipe.jsonl import Row` something inside of one."""
    return f"{package}.{name}" if f"{package}.{name}" in sources() else package


def group(name: str) -> str:
    """The group of a module of ours."""
    unit = "stages" if name.partition(".")[0] == "stages" else name.split(".")[1]
    return next((group for group, units in GROUPS.items() if unit in units), "")


def ours(name: str) -> list[Import]:
    """What a module imports of our own, the bare package with its version left out."""
    return [each for each in imports(name) if each.target in sources() and each.target != "r1pipe"]


def test_every_module_has_its_place():
    """A new module is put into a group here and into docs/architecture.md, or this fails."""
    assert [name for name in sources() if name != "r1pipe" and not group(name)] == []
    told = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    units = {name.split(".")[1] for name in sources() if name.startswith("r1pipe.")} - {"__main__"}
    assert [unit for unit in sorted(units) if f"`{unit}`" not in told] == []


def test_arrows_point_one_way():
    """A group imports only from the groups its arrows lead to."""
    wrong = [
        f"{name}:{each.line} imports {each.target}"
        for name in sources()
        if name != "r1pipe"
        for each in ours(name)
        if group(each.target) not in ARROWS[group(name)] | {group(name)}
    ]
    assert wrong == []


def test_no_circle_of_imports():
    """Late imports count too: a circle is not mended by moving an import into a function."""
    graph = {name: {each.target for each in ours(name)} - {name} for name in sources()}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_only_these_know_the_stages():
    """Nothing that a stage uses may know that stage, and no stage knows another."""
    knowing = {name for name in sources() for each in ours(name) if each.target.startswith("stages")}
    assert knowing == KNOW_THE_STAGES


def test_heavy_libraries_stay_in_their_rooms():
    """torch and the like are imported by train/, rollout/, the tokenizer and the stages, and by no other."""
    for name in sources():
        for each in imports(name):
            library = each.target.partition(".")[0]
            if library in HEAVY and not (library == "numpy" and name in ON_ARRAYS):
                where = f"{name}:{each.line} imports {each.target}"
                assert name.startswith(HEAVY_ROOMS), where
                assert each.late or name.startswith(("r1pipe.train.", "r1pipe.rollout.")), where


def test_what_stages_import_at_once_is_light():
    """A stage's help and its config need nothing heavy, through however many modules."""
    reached: set[str] = set()
    waiting = [name for name in sources() if name.startswith("stages")]
    while waiting:
        name = waiting.pop()
        at_once = [each for each in imports(name) if not each.late]
        assert [each.target for each in at_once if each.target.partition(".")[0] in HEAVY] == [], name
        # Importing a module runs the packages around it.
        found = {".".join(each.target.split(".")[:n]) for each in at_once for n in range(1, 5)}
        waiting += (found & set(sources())) - reached
        reached |= found


@pytest.mark.parametrize("name", sorted(sources()))
def test_house_rules(name: str):
    """Only output.py prints; no broad `except`, no pickle, no code from a model's repository."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call) and name != "r1pipe.output":
            assert ast.unparse(node.func) not in ("print", "typer.echo", "rich.print"), node.lineno
        elif isinstance(node, ast.ExceptHandler):
            caught = ast.unparse(node.type) if node.type else "everything"
            # BaseException may be caught to tidy up, if it goes on its way afterwards.
            tidies = caught == "BaseException" and ast.unparse(node.body[-1]) == "raise"
            assert tidies or not {"everything", "Exception", "BaseException"} & set(caught.split()), caught
        elif isinstance(node, ast.keyword):
            assert node.arg != "trust_remote_code"
    assert {each.target for each in imports(name)} & {"pickle", "dill", "cloudpickle", "joblib"} == set()
