"""Rows of programming exercises: what their tests are, read off their columns.

- `test` with `check(candidate)`, `entry_point` and `prompt`: HumanEval. The program continues the prompt, or
  is a whole function.
- `test_list` (also `challenge_test_list`, `test_setup_code`, `test_imports`): MBPP's assertions.
- `inputs` and `outputs`, `tests` as `[{input, output}]`, or `input_output` as in APPS: what the program reads
  and has to print, or with `fn_name` the arguments and the results of a function.
"""

import ast
import builtins
import json
import keyword
import math
import sys
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

SOLUTION_COLUMNS: Final = ("canonical_solution", "code", "solution", "solutions")

_STDIN: Final = "The program reads its input from stdin and prints its output to stdout."
_SAME: Final = """
def _plain(value):
    if isinstance(value, dict):
        return {str(key) if type(key) is int else key: _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, (list, tuple)) else value

def _same(got, expected):
    return _plain(got) == expected or [_plain(got)] == expected
"""
"""For results in JSON, which has no tuples, and texts for keys; many sets wrap the only result in a list."""


class Unusable(ValueError):
    """Why a row cannot be asked."""


def gold_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """What is needed to judge an answer, as JSON: `pairs`, or `names`, `tests` and `prelude`.

    `before` is what the program continues, `parameters` and `method` what the question has to tell, and
    `solution` the row's own, if it has one.

    Raises:
        Unusable: the row has no tests, or something in them cannot be read.
    """
    if "test" in row and "entry_point" in row:
        return _check_function(row)
    if "test_list" in row:
        return _assertions(row)
    packed = _unpacked(row.get("input_output"), "input_output")
    packed = row if packed is None else packed
    if not isinstance(packed, Mapping):
        raise Unusable("input_output is no object")
    return {**(_calls(row, packed) if packed.get("fn_name") else _pairs(packed)), "solution": _solution(row)}


def worded(question: str, gold: Mapping[str, Any]) -> str:
    """The question with what its tests take for granted, and without the tests."""
    if "pairs" in gold:
        return f"{question}\n\n{_STDIN}"
    if "method" in gold:
        return f"{question}\n\nWrite it as the method `{gold['method']}` of a class `Solution`."
    if "before" in gold:
        return f"Complete this Python function.\n\n{question}"
    (name, *others), (count, *counts) = gold["names"], gold["parameters"]
    told = f"Write it as `{name}`{_parameters(count)}."
    for other, taken in zip(others, counts, strict=True):
        told += f" Define `{other}`{_parameters(taken)} too."
    return f"{question}\n\n{told}"


def whole(before: str, entry: str, answer: str) -> str:
    """The program that an answer makes: as it stands after what came `before`, or as the body of its end."""
    if not before or (is_program(answer) and entry in defined_by(answer)):
        return f"{before}\n\n{answer}" if before else answer
    return next(filter(try_parse, _bodies(before, answer)), before + answer)


def reads_as_python(text: str) -> bool:
    """Whether a text is a program, or the body of a function."""
    return bool(text.strip()) and any(map(try_parse, (text.strip(), *_bodies("def f():\n", text))))


def is_program(text: str) -> bool:
    """Whether a text is a program by itself, and not the body of a function."""
    try:
        compile(text, "program.py", "exec")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True


def defined_by(source: str) -> set[str]:
    """The names that a program binds for whoever imports it; none of what is no Python."""
    tree = try_parse(source)
    found = set(_imports(tree)) if tree else set()
    waiting: list[ast.AST] = [tree] if tree else []
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif not isinstance(node, ast.Lambda):
            waiting += ast.iter_child_nodes(node)
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
    return found


def try_parse(source: str) -> ast.Module | None:
    """A source's tree, or None."""
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # the parser's own limits among them
        return None


# --- The kinds of rows


def _check_function(row: Mapping[str, Any]) -> dict[str, Any]:
    """HumanEval. The prompt's own helpers are run beside the tests, so that no program changes them."""
    entry, test, before = row["entry_point"], row["test"], row.get("prompt")
    if not (isinstance(entry, str) and entry.isidentifier() and not keyword.iskeyword(entry)):
        raise Unusable("entry_point names no function")
    if not isinstance(before, str) or entry not in _defined(_parsed(before, "prompt")):
        raise Unusable("prompt does not begin the function that entry_point names")
    if "check" not in _defined(_parsed(test, "test")):
        raise Unusable("test defines no check(candidate)")
    solution = _solution(row)
    return {
        "names": [entry],
        "tests": [test, f"check({entry})"],
        "prelude": before,
        "before": before,
        "solution": whole(before, entry, solution) if solution else None,
    }


def _assertions(row: Mapping[str, Any]) -> dict[str, Any]:
    """MBPP. What the tests use without defining it is the program's, or from a module."""
    tests = [*_texts(row, "test_list"), *_texts(row, "challenge_test_list")]
    setup = [each for each in _texts(row, "test_setup_code") if each.strip()]
    if not tests:
        raise Unusable("test_list is empty")
    imports = "\n".join(_texts(row, "test_imports"))
    trees = [_parsed(each, "a test") for each in (*tests, *setup)]
    solution = _solution(row)
    names, more = _used(trees, _defined(_parsed(imports, "test_imports")), try_parse(solution or ""))
    if not names:
        raise Unusable("the tests call nothing of the program")
    counts = dict(reversed([call for tree in trees for call in _calls_in(tree)]))
    return {
        "names": names,
        "tests": [*setup, *tests],
        "prelude": "\n".join([imports, *more]),
        "parameters": [counts.get(name) for name in names],
        "solution": solution,
    }


def _calls(row: Mapping[str, Any], packed: Mapping[str, Any]) -> dict[str, Any]:
    """APPS's functions: arguments and results as JSON, of a function or of a method of `Solution`."""
    name = str(packed["fn_name"])
    if not name.isidentifier() or keyword.iskeyword(name):
        raise Unusable("fn_name names no function")
    arguments, results = _lists(packed)
    if not all(isinstance(given, list) for given in arguments):
        raise Unusable("inputs holds something that is no list of arguments")
    if not all(map(_is_finite, (*arguments, *results))):
        raise Unusable("inputs or outputs hold something that is no number of JSON")
    method = "class Solution" in str(row.get("starter_code") or "")
    called = f"Solution().{name}" if method else name
    cases = zip(arguments, results, strict=True)
    return {
        "names": ["Solution" if method else name],
        "tests": [f"assert _same({called}(*{given!r}), {expected!r})" for given, expected in cases],
        "prelude": _SAME,
        **({"method": name} if method else {"parameters": [len(arguments[0])]}),
    }


def _pairs(packed: Mapping[str, Any]) -> dict[str, Any]:
    """What the program reads, and what it has to print."""
    tests = _unpacked(packed.get("tests"), "tests")
    if tests is None:
        given, expected = _lists(packed)
    elif isinstance(tests, list) and tests and all(map(_is_pair, tests)):
        given, expected = [each["input"] for each in tests], [each["output"] for each in tests]
    else:
        raise Unusable("tests is no list of {input, output}")
    return {"pairs": [[_lines(one), _lines(other)] for one, other in zip(given, expected, strict=True)]}


def _is_pair(value: Any) -> bool:
    return isinstance(value, Mapping) and {"input", "output"} <= set(value)


def _lists(packed: Mapping[str, Any]) -> tuple[list[Any], list[Any]]:
    given, expected = (_unpacked(packed.get(name), name) for name in ("inputs", "outputs"))
    if not isinstance(given, list) or not isinstance(expected, list):
        raise Unusable("no test with entry_point, no test_list, no tests, no inputs with outputs")
    if not given or len(given) != len(expected):
        raise Unusable(f"{len(given)} inputs and {len(expected)} outputs")
    return given, expected


def _unpacked(value: Any, name: str) -> Any:
    """A value, or what it holds where it is JSON in a text."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value, parse_constant=_no_number, parse_float=_finite)
    except (ValueError, RecursionError) as error:
        raise Unusable(f"{name} is no JSON: {error}") from error


def _finite(text: str) -> float:
    return float(text) if math.isfinite(float(text)) else _no_number(text)


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number of JSON")


def _is_finite(value: Any) -> bool:
    """Whether all numbers in a value are numbers of JSON."""
    try:
        json.dumps(value, allow_nan=False)
    except (ValueError, RecursionError):
        return False
    return True


def _lines(value: Any) -> str:
    """What is read or printed, where it is a list of lines too."""
    return "\n".join(map(str, value)) if isinstance(value, list) else str(value)


def _texts(row: Mapping[str, Any], name: str) -> list[str]:
    value = row.get(name) or []
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Unusable(f"{name} is no list of texts")
    return found


def _solution(row: Mapping[str, Any]) -> str | None:
    value = next((row[name] for name in SOLUTION_COLUMNS if row.get(name)), None)
    if isinstance(value, str) and value.lstrip().startswith("["):
        value = _unpacked(value, "solutions")
    if isinstance(value, list) and value:
        value = value[0]
    return value.replace("\r\n", "\n") if isinstance(value, str) else None


# --- What tests and programs name


def _parsed(source: Any, what: str) -> ast.Module:
    tree = try_parse(source) if isinstance(source, str) else None
    if tree is None:
        raise Unusable(f"{what} is no Python")
    return tree


def _defined(tree: ast.Module) -> set[str]:
    """The names that a source binds, at whatever depth."""
    found = set(_imports(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.ExceptHandler) and node.name:
            found.add(node.name)
    return found


def _imports(tree: ast.Module) -> dict[str, str]:
    """The names that a source imports, each with a statement that imports it alone."""
    found: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            start = f"from {'.' * node.level}{node.module or ''} " if isinstance(node, ast.ImportFrom) else ""
            for alias in node.names:
                name = (alias.asname or alias.name).partition(".")[0]
                found[name] = f"{start}{ast.unparse(ast.Import([alias]))}"
    return found


def _used(
    trees: Iterable[ast.Module], known: set[str], solution: ast.Module | None
) -> tuple[list[str], list[str]]:
    """(names of the program, imports) that tests use without defining them, as they come.

    What the row's own solution imports, and standard modules, are imported: a program must not put its own in
    their place. A built-in name is the program's only if the solution defines it.
    """
    trees = list(trees)
    imports = _imports(solution) if solution else {}
    own = _defined(solution) - set(imports) if solution else set()
    known = known.union(*map(_defined, trees))
    bases = {
        node.value.id
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)
    }
    names, more = list[str](), list[str]()
    for name in dict.fromkeys(each for tree in trees for each in _names_in(tree)):
        if name in known or (name not in own and hasattr(builtins, name)):
            continue
        if name in imports:
            more.append(imports[name])
        elif name in bases and name in sys.stdlib_module_names and name not in own:
            more.append(f"import {name}")
        else:
            names.append(name)
    return names, more


def _names_in(tree: ast.Module) -> list[str]:
    """The names in a source in the order of the text."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    return [node.id for node in sorted(nodes, key=lambda node: (node.lineno, node.col_offset))]


def _calls_in(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(function, number of its arguments) for every call of a bare name."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id, len(node.args) + len(node.keywords)


def _parameters(count: int | None) -> str:
    return "" if count is None else f" with {count} parameter{'' if count == 1 else 's'}"


def _bodies(head: str, body: str) -> Sequence[str]:
    """A function's head with what may be its body: as it stands, or with the indentation that was lost."""
    body = body.strip("\n")
    indented = textwrap.indent(textwrap.dedent(body), "    ")
    if body[:1].isspace():
        return [head + body, head + indented]
    return [head + indented, f"{head}    {body}"]  # a text that was stripped lost that of its first line
