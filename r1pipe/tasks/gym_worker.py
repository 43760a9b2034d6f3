"""reasoning-gym's generators and scorers: what runs in a worker of `r1pipe.verify.pool`, and nowhere else.

A scorer may hang on an answer, and some hand it to `eval` or to sympy's parser, which evaluates it too. So an
answer that such a scorer is given has to be plain arithmetic, by its syntax tree. While any scorer is at
work, an audit hook also refuses what arithmetic has no use for: writing files, reading any outside the
interpreter's own, starting programs, opening sockets, loading C code. And a deadline ends it.
"""

import ast
import inspect
import os
import re
import sys
import tokenize
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Final

from r1pipe import jsonl
from r1pipe.verify.pool import serve
from r1pipe.verify.verdict import Mark

JUNK: Final = ("", "junk", "no answer", "\\boxed{}")
"""No generator's right answer; a scorer that gives one of them full marks cannot be trusted."""
_HARMLESS: Final = (
    "builtins.", "code.", "compile", "cpython.", "exec", "gc.", "import", "marshal.", "object.__getattr__",
    "object.__setattr__", "os.listdir", "os.scandir", "sys._getframe", "sys.excepthook",
)  # fmt: skip
"""Audit events, or beginnings of their names, of code that computes and imports."""

_UNREADABLE: Final = (
    ArithmeticError, AssertionError, AttributeError, LookupError, NameError, PermissionError, SyntaxError,
    TypeError, ValueError, tokenize.TokenError,
)  # fmt: skip
"""What scorers raise on answers of another form, and `_refuse` on what they may not cause.

Anything else, such as a lack of memory or depth, ends the worker and decides nothing.
"""

_scoring = False


def main() -> None:
    """Serve what `answer` answers."""
    sys.addaudithook(_refuse)
    serve(answer)


def answer(question: list[Any]) -> Any:
    """One of `["names"]`, `["entries", name, config, indices]` and
    `["score", name, config, index, question, answer]`."""
    what, *given = question
    answers: dict[str, Callable[..., Any]] = {"names": names, "entries": entries, "score": score}
    return answers[what](*given)


def names() -> list[str]:
    """All generators by name."""
    from reasoning_gym.factory import DATASETS

    return sorted(DATASETS)


def entries(name: str, config: str, indices: list[int]) -> list[dict[str, Any]] | str:
    """The question and the right answer of each index, or why there are none."""
    from reasoning_gym.factory import DATASETS

    if name not in DATASETS:
        return f"reasoning-gym has no generator {name!r}"
    try:
        found = [_entry(name, config, index) for index in indices]
    except (AssertionError, IndexError, TypeError, ValueError) as error:
        return f"the generator {name!r} refuses: {type(error).__name__}: {error}"
    texts = [{"question": str(entry["question"]), "answer": _text(entry["answer"])} for entry in found]
    return texts


def score(name: str, config: str, index: int, question: str, given: str) -> tuple[Mark, str]:
    """The mark of an answer by the generator's own scorer, and the reason for it. Full marks pass."""
    entry = _entry(name, config, index)
    if entry["question"] != question:
        return Mark.UNDECIDED, "the generator has made another problem"
    if given != entry["answer"] and _evaluates(name, config) and not _is_arithmetic(given):
        return Mark.FAIL, "not an expression"
    if trouble := _untrustworthy(name, config, index):
        return Mark.UNDECIDED, trouble
    found = _scored(name, config, given, entry)
    if isinstance(found, str):
        return Mark.FAIL, f"the scorer cannot read it: {found}"
    return (Mark.PASS, "") if found >= 1 else (Mark.FAIL, "wrong answer")


@lru_cache(maxsize=4096)
def _untrustworthy(name: str, config: str, index: int) -> str:
    """Why the scorer of an item decides nothing: it fails the right answer, or passes junk."""
    entry = _entry(name, config, index)
    right = entry["answer"]
    if isinstance(right, str) and _scored(name, config, right, entry) != 1:
        return "the scorer refuses the right answer"
    passes = [junk for junk in JUNK if junk != right and _scored(name, config, junk, entry) == 1]
    return f"the scorer passes {passes[0]!r}" if passes else ""


def _scored(name: str, config: str, given: str, entry: dict[str, Any]) -> float | str:
    """The score, or the name of the error that the scorer raised."""
    global _scoring
    dataset = _dataset(name, config)
    _scoring = True
    try:
        return float(dataset.score_answer(given, entry))
    except _UNREADABLE as error:
        return type(error).__name__
    finally:
        _scoring = False


@lru_cache(maxsize=16)
def _evaluates(name: str, config: str) -> bool:
    """Whether a generator's module evaluates texts; which texts those are, it does not tell."""
    source = inspect.getsource(sys.modules[type(_dataset(name, config)).__module__])
    return bool(re.search(r"\b(?:eval|parse_expr|sympify)\(", source))


_FUNCTIONS: Final = frozenset(
    {
        "abs", "Abs", "acos", "asin", "atan", "cos", "cosh", "cot", "csc", "exp", "ln", "log", "sec", "sin",
        "sinh", "sqrt", "tan", "tanh",
    }
)  # fmt: skip
_PLAIN: Final = (
    ast.Expression, ast.Constant, ast.List, ast.Tuple, ast.UnaryOp, ast.BinOp, ast.Name, ast.Call, ast.Load,
    ast.unaryop, ast.operator,
)  # fmt: skip


def _is_arithmetic(text: str) -> bool:
    """Whether a text is numbers, texts, single letters and lists of them, joined by signs and functions."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        return False
    return all(_is_plain(node) for node in ast.walk(tree))


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and not node.keywords
    if isinstance(node, ast.Name):
        return len(node.id) == 1 or node.id in _FUNCTIONS or node.id == "pi"
    return isinstance(node, _PLAIN)


@lru_cache(maxsize=16)
def _dataset(name: str, config: str) -> Any:
    import reasoning_gym

    return reasoning_gym.create_dataset(name, **jsonl.loads(config))


@lru_cache(maxsize=4096)
def _entry(name: str, config: str, index: int) -> dict[str, Any]:
    entry: dict[str, Any] = _dataset(name, config)[index]
    return entry


def _text(answer: Any) -> str | None:
    return answer if isinstance(answer, str) else None


def _refuse(event: str, args: tuple[Any, ...]) -> None:
    if not _scoring or event.startswith(_HARMLESS):
        return
    if event == "open" and _reads_library(*args):
        return
    raise PermissionError(f"an answer may not cause {event}")


def _reads_library(path: Any, mode: Any, flags: Any) -> bool:
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    if not isinstance(path, str | os.PathLike) or (isinstance(flags, int) and flags & writing):
        return False
    real = os.path.realpath(path)
    return any(real.startswith(f"{os.path.realpath(root)}{os.sep}") for root in (sys.prefix, sys.base_prefix))
