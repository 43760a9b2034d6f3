"""Traces in the forms that other tools read.

    prompt-completion   TRL: the loss is on the completion alone
    messages            TRL and most others: one turn of a user, one of the assistant
    sharegpt            LLaMA-Factory, OpenThoughts: `conversations`
    openr1              OpenR1-Math: one row per problem, its generations in lists

A thinking stands between `<think>` and `</think>` in all of them, also where the prompt had opened it, but in
the first, whose prompt and completion are those of the model.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, Literal

from r1pipe import jsonl
from r1pipe.errors import UsageError
from r1pipe.prompting import OPEN_THINK

Row = dict[str, Any]
Form = Literal["prompt-completion", "messages", "sharegpt", "openr1"]
REJECTS: Final = "rejects.jsonl"
"""What a dataset keeps beside its rows."""

_NEEDED: Final = {
    "prompt-completion": ("prompt", "completion"),
    "messages": ("question", "completion", "opened"),
    "sharegpt": ("question", "completion", "opened"),
    "openr1": ("problem_id", "question", "completion", "opened", "gold", "task", "verdict", "finish_reason"),
}


def export(dataset: Path, form: Form, out: Path, *, rejects: bool = False) -> int:
    """Write a dataset's rows in another form as one JSON Lines file; return how many were written.

    `rejects` takes in what was rejected, too, where the dataset has kept it: so a problem's generations are
    all that were made. Memory holds one row, and the places of all for `openr1`.

    Raises:
        UsageError: nothing is there, or a row lacks a column that the form needs.
        RunFailed: the file cannot be written.
    """
    files = jsonl.parts(dataset)
    if rejects:
        if not (dataset / REJECTS).is_file():
            raise UsageError(f"'{dataset}' has no {REJECTS}: leave out --with-rejects.")
        files.append(dataset / REJECTS)
    if form == "openr1":
        return jsonl.write_rows(out, map(_problem, _by_problem(files)))
    rows = (row for file in files for row in _checked(file, form))
    return jsonl.write_rows(out, map(_FORMS[form], rows))


# --- One row per trace


def _prompt_completion(row: Row) -> Row:
    return {"prompt": row["prompt"], "completion": row["completion"]}


def _messages(row: Row) -> Row:
    return {
        "messages": [
            {"role": "user", "content": row["question"]},
            {"role": "assistant", "content": generation(row)},
        ]
    }


def _sharegpt(row: Row) -> Row:
    return {
        "conversations": [
            {"from": "user", "value": row["question"]},
            {"from": "assistant", "value": generation(row)},
        ]
    }


_FORMS: Final[dict[str, Callable[[Row], Row]]] = {
    "prompt-completion": _prompt_completion,
    "messages": _messages,
    "sharegpt": _sharegpt,
}


def generation(row: Row) -> str:
    """All that the assistant said, the `<think>` that its prompt had opened included."""
    text = str(row["completion"])
    if not row["opened"]:
        return text
    return f"{OPEN_THINK}{'' if text[:1].isspace() else chr(10)}{text}"


# --- One row per problem


def _problem(rows: Sequence[Row]) -> Row:
    """The row of a problem, as OpenR1-Math-220k has it; `correctness` is null where nobody decided."""
    first = rows[0]
    right = [{"pass": True, "fail": False}.get(row["verdict"]) for row in rows]
    best = next((row for row, passed in zip(rows, right, strict=True) if passed), None)
    gold = first["gold"]
    return {
        "uuid": first["problem_id"],
        "problem": first["question"],
        "answer": gold if isinstance(gold, str) else jsonl.dumps(gold).decode(),
        "source": first["task"],
        "generations": [generation(row) for row in rows],
        "finish_reasons": [row["finish_reason"] for row in rows],
        "is_reasoning_complete": [row["finish_reason"] == "stop" for row in rows],
        "correctness": right,
        "correctness_count": sum(map(bool, right)),
        "messages": [] if best is None else _messages(best)["messages"],
    }


def _by_problem(files: Sequence[Path]) -> Iterator[list[Row]]:
    """The rows of one problem after the other, in the order in which problems first come, by their sample.

    Rows of a problem may stand anywhere: where each begins is noted first, then they are read again.
    """
    places: dict[str, list[tuple[int, int]]] = {}
    for number, file in enumerate(files):
        for begin, row in _placed(file):
            places.setdefault(str(row["problem_id"]), []).append((number, begin))
    with ExitStack() as stack:
        opened = [stack.enter_context(open(file, "rb")) for file in files]

        def read(number: int, begin: int) -> Row:
            opened[number].seek(begin)
            return dict(jsonl.loads(opened[number].readline()))

        for found in places.values():
            rows = [read(*place) for place in found]
            yield sorted(rows, key=lambda row: int(row.get("sample", 0)))


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
        if lacking := [column for column in _NEEDED[form] if column not in row]:
            has = ", ".join(row) or "nothing"
            raise UsageError(
                f"{file}:{line}: no {' and no '.join(map(repr, lacking))}, which {form} needs; the row has: "
                f"{has}. Export a dataset of `sample`, whose columns `r1pipe schema` tells."
            )
        yield row
