"""Traces in the forms that other tools read.

    prompt-completion   TRL: the loss is on the completion alone
    messages            TRL and most others: one turn of a user, one of the assistant
    sharegpt            LLaMA-Factory, OpenThoughts: `conversations`
    openr1              OpenR1-Math: one row per problem, its generations in lists

A thinking stands between `<think>` and `</think>` in all of them, also where the prompt had opened it, but in
the first, whose prompt and completion are those of the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import filelock

from r1pipe import jsonl
from r1pipe.conversation import read_turns
from r1pipe.errors import Conflict, UsageError
from r1pipe.prompting import OPEN_THINK, opens_thinking

Row = dict[str, Any]
Form = Literal["prompt-completion", "messages", "sharegpt", "openr1"]
REJECTS: Final = "rejects.jsonl"
"""What a dataset keeps beside its rows."""

VALIDATION: Final = ("validation-*.jsonl", "validation-*.jsonl.zst")
"""What `curate` has split off."""


def export(dataset: Path, form: Form, out: Path, *, rejects: bool = False, validation: bool = False) -> int:
    """Write a dataset's rows in another form as one JSON Lines file; return how many were written.

    `rejects` takes in what was rejected, too, where the dataset has kept it: so a problem's generations are
    all that were made. `validation` takes the rows that `curate` has split off in place of the others. Memory
    holds one row, and the places of all for `openr1`.

    Raises:
        UsageError: nothing is there, or a row lacks what the form needs.
        Conflict: another process writes that file.
        RunFailed: the file cannot be written.
    """
    files = _validation(dataset) if validation else jsonl.parts(dataset)
    if rejects:
        if not (dataset / REJECTS).is_file():
            raise UsageError(f"'{dataset}' has no {REJECTS}: leave out --with-rejects.")
        files.append(dataset / REJECTS)
    if form == "openr1":
        made = map(_problem, _by_problem(files))
    else:
        made = map(_FORMS[form], (row for file in files for row in _checked(file, form)))
    with _alone(out):
        if not (written := jsonl.write_rows(out, made)):
            out.unlink()
            raise UsageError(f"'{dataset}' holds no rows, so that nothing is written. Check the path.")
    return written


@contextmanager
def _alone(out: Path) -> Iterator[None]:
    """Be the only one that writes a file: two would write into each other's lines."""
    lock = filelock.FileLock(out.with_name(f".{out.name}.lock"))
    with jsonl.writing(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(blocking=False)
        except filelock.Timeout:
            raise Conflict(f"Another export writes '{out}'. Wait for it, or give another --out.") from None
    try:
        yield
    finally:
        # While it is locked: whoever has opened it by then sees that it is gone, and makes a new one.
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _validation(dataset: Path) -> list[Path]:
    if found := sorted(file for pattern in VALIDATION for file in dataset.glob(pattern)):
        return found
    raise UsageError(
        f"'{dataset}' has no split for validation, as `curate` makes it: leave out --validation."
    )


# --- One row per trace


def _prompt_completion(row: Row) -> Row:
    return {"prompt": row["prompt"], "completion": row["completion"]}


def _messages(row: Row) -> Row:
    return {"messages": _turns(row)}


_SHAREGPT: Final = {"user": "human", "assistant": "gpt"}
"""What its roles are called there, which is what LLaMA-Factory looks for; others keep their names."""


def _sharegpt(row: Row) -> Row:
    turns = ((_SHAREGPT.get(turn["role"], turn["role"]), turn["content"]) for turn in _turns(row))
    return {"conversations": [{"from": role, "value": content} for role, content in turns]}


def _turns(row: Row) -> list[dict[str, str]]:
    """The conversation; a row that is one has it already."""
    if row.get("messages"):
        turns = read_turns(row["messages"], "messages")
        assert not isinstance(turns, str), turns  # `_checked` lets no such row through
        return turns
    return [
        {"role": "user", "content": _question(row)},
        {"role": "assistant", "content": generation(row)},
    ]


def _question(row: Row) -> str:
    """What was asked, without a template where the row tells it."""
    if row.get("question"):
        return str(row["question"])
    if row.get("messages"):
        return "\n\n".join(turn["content"] for turn in _turns(row) if turn["role"] == "user")
    return str(row["prompt"])


_FORMS: Final[dict[str, Callable[[Row], Row]]] = {
    "prompt-completion": _prompt_completion,
    "messages": _messages,
    "sharegpt": _sharegpt,
}


def generation(row: Row) -> str:
    """All that the assistant said, the `<think>` that its prompt had opened included."""
    if row.get("messages"):
        return _turns(row)[-1]["content"]
    text = str(row["completion"])
    if not row.get("opened", opens_thinking(str(row.get("prompt", "")))):
        return text.lstrip(" ")  # which only kept it apart from its prompt
    return f"{OPEN_THINK}{'' if text[:1].isspace() else chr(10)}{text}"


# --- One row per problem


def _problem(rows: Sequence[Row]) -> Row:
    """The row of a problem, as OpenR1-Math-220k has it; `correctness` is null where nobody decided."""
    first = rows[0]
    right = [_RIGHT.get(str(row.get("verdict"))) for row in rows]
    best = next((row for row, passed in zip(rows, right, strict=True) if passed), None)
    gold, ends = first["gold"], [_finish_reason(row) for row in rows]
    return {
        "uuid": _problem_of(first),
        "problem": _question(first),
        "answer": gold if isinstance(gold, str) else jsonl.dumps(gold).decode(),
        "source": first.get("task"),
        "generations": [generation(row) for row in rows],
        "finish_reasons": ends,
        "is_reasoning_complete": [None if end is None else end == "stop" for end in ends],
        "correctness": right,
        "correctness_count": sum(map(bool, right)),
        "messages": [] if best is None else _turns(best),
    }


_RIGHT: Final = {"pass": True, "fail": False}


def _problem_of(row: Row) -> str:
    """A row without a problem's id is of the problem that its question is."""
    return str(row.get("problem_id") or _question(row))


def _finish_reason(row: Row) -> str | None:
    """Why it ended, where the row tells."""
    told = row.get("finish_reason")
    return told if told is not None else "length" if row.get("truncated") else None


def _by_problem(files: Sequence[Path]) -> Iterator[list[Row]]:
    """The rows of one problem after the other, in the order in which problems first come, by their sample.

    Rows of a problem may stand anywhere: where each begins is noted first, then they are read again.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    for number, file in enumerate(files):
        for begin, row in _placed(file):
            places.setdefault(_problem_of(row), []).append((number, begin))
    with ExitStack() as stack:
        opened = [stack.enter_context(open(file, "rb")) for file in files]

        def read(number: int, begin: int) -> Row:
            opened[number].seek(begin)
            return dict(jsonl.loads(opened[number].readline()))

        for found in places.values():
            rows = [read(*place) for place in found]
            yield sorted(rows, key=_sample)


def _sample(row: Row) -> int:
    told = row.get("sample")
    return told if isinstance(told, int) else 0


def _placed(file: Path) -> Iterator[tuple[int, Row]]:
    """The rows of a file, each with the byte at which its line begins."""
    if file.suffix in (".gz", ".zst"):
        raise UsageError(f"'{file}' has to be unpacked for openr1, which reads in it back and forth.")
    with open(file, "rb") as lines:
        begins, begin = [], 0
        for line in lines:
            if line.strip():
                begins.append(begin)
            begin += len(line)
    yield from zip(begins, _checked(file, "openr1"), strict=True)


def _checked(file: Path, form: Form) -> Iterator[Row]:
    """The rows of a file, if each has what the form needs."""
    for line, row in jsonl.scan(file):
        if isinstance(row, jsonl.BadRow):
            raise UsageError(f"{row}. Correct or remove this line.")
        if lacking := [column for column in _needed(row, form) if column not in row]:
            has = ", ".join(row) or "nothing"
            raise UsageError(
                f"{file}:{line}: no {' and no '.join(map(repr, lacking))}, which {form} needs; the row has: "
                f"{has}. Export a dataset of `sample`, whose columns `r1pipe schema` tells, or of `curate`."
            )
        if (wrong := _wrong(row, form)) is not None:
            raise UsageError(f"{file}:{line}: {wrong}. Correct or remove this line, or let `curate` do it.")
        yield row


def _needed(row: Row, form: Form) -> tuple[str, ...]:
    """The columns that a row must have. A conversation of others tells question and completion itself."""
    if form == "prompt-completion":
        return "prompt", "completion"
    question = "question" if row.get("question") else "prompt"
    said = () if row.get("messages") else (question, "completion")
    return (*said, "gold") if form == "openr1" else said


def _wrong(row: Row, form: Form) -> str | None:
    """What is wrong with the words of a row that has all columns."""
    if form != "prompt-completion" and row.get("messages"):
        turns = read_turns(row["messages"], "messages")
        return turns if isinstance(turns, str) else None
    texts = [column for column in _needed(row, form) if column != "gold"]
    no_text = [column for column in texts if not isinstance(row[column], str)]
    return f"no text in {' and '.join(map(repr, no_text))}" if no_text else None
