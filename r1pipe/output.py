"""The one object that prints. Commands hand it data and views; stages and the pipeline hand it events.

- On a terminal: rich tables, and a bar for each running stage under the lines that scroll by.
- In a pipe or a file: plain lines, never `\\r`, never a colour.
- With `--json`: exactly one JSON document on stdout; the lines of a run go to stderr.
"""

import json
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TextIO

from r1pipe.errors import R1pipeError
from r1pipe.lines import event_line

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import TaskID

QUIET_SECONDS = 30.0
"""A stage that reports progress but logs no rows still says a line this often where there are no bars."""

_STYLES = {
    "stage_finished": "green",
    "stage_reused": "dim",
    "stage_failed": "bold red",
    "stage_skipped": "yellow",
}


@dataclass(frozen=True, slots=True)
class Table:
    """A table to show."""

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    left: int = 1
    """This many columns are words, aligned to the left; the others are numbers, aligned to the right."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One model's answer to a problem."""

    model: str
    verdict: str
    text: str


@dataclass(frozen=True, slots=True)
class Answers:
    """One problem, answered by several models, to be shown side by side."""

    question: str
    answers: Sequence[Answer]


View = str | Table | Answers


@dataclass
class Output:
    """Prints results, events and errors, as the reader can take them."""

    json: bool = False
    debug: bool = False
    stdout: TextIO = field(default_factory=lambda: sys.stdout)
    stderr: TextIO = field(default_factory=lambda: sys.stderr)
    clock: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._told: dict[str, float] = {}
        self._bars: _Bars | None = None
        for stream in (self.stdout, self.stderr):
            # A "±" must not end a night's run because the log's encoding is ASCII.
            if (reconfigure := getattr(stream, "reconfigure", None)) is not None:
                reconfigure(errors="replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def terminal(self) -> bool:
        """Whether a person is looking: stdout is a terminal and JSON was not asked for."""
        return not self.json and self.stdout.isatty()

    def result(self, data: Any, *views: View) -> None:
        """Print a command's result: `data` as JSON where that was asked for, else the views."""
        with self._lock:
            if self.json:
                self.stdout.write(json.dumps(data, ensure_ascii=False, indent=2, default=str) + "\n")
            else:
                for view in views:
                    self._view(view)
            self.stdout.flush()

    def event(self, kind: str, stage: str, **fields: Any) -> None:
        """Take one event of a run (`r1pipe.stage.Sink`). May be called from any thread."""
        with self._lock:
            if self.terminal:
                self._bars = self._bars or _Bars(_console(self.stdout))
                self._bars.event(kind, stage, fields)
            if kind == "progress":
                self._progress_line(stage, fields)
            elif (text := event_line(kind, fields)) is not None:
                self._line(stage, text, _STYLES.get(kind, ""))
        if kind == "run_finished":
            self.close()

    def error(self, error: BaseException) -> None:
        """Print one clear message on stderr; with `--debug` the traceback before it."""
        self.close()
        if self.debug:
            self.stderr.write("".join(traceback.format_exception(error)))
        message = str(error) or type(error).__name__
        if self.json:
            code = error.exit_code if isinstance(error, R1pipeError) else 1
            self.stdout.write(json.dumps({"error": message, "exit_code": code}, ensure_ascii=False) + "\n")
        self.stderr.write(f"r1pipe: {message}\n")
        self.stderr.flush()

    def close(self) -> None:
        """Take the bars away; what was printed stays."""
        with self._lock:
            if self._bars is not None:
                self._bars.stop()
                self._bars = None

    def _line(self, stage: str, text: str, style: str = "") -> None:
        self._told[stage] = self.clock()
        head = f"{stage:<12} " if stage else ""
        if self._bars is not None:
            self._bars.print(head, text, style)
            return
        when = time.strftime("%H:%M:%S", time.localtime(self.clock()))
        stream = self.stderr if self.json else self.stdout
        stream.write("".join(f"{when} {head}{line}\n" for line in text.splitlines() or [""]))
        stream.flush()

    def _progress_line(self, stage: str, fields: dict[str, Any]) -> None:
        told = self._told.setdefault(stage, self.clock())
        if self._bars is None and self.clock() - told >= QUIET_SECONDS:
            self._line(stage, f"{fields['done']}/{fields['total']} {fields['unit']}")

    def _view(self, view: View) -> None:
        if self.terminal:
            _console(self.stdout).print(_rich(view), soft_wrap=isinstance(view, str))
        else:
            self.stdout.write(_plain(view))


def _plain(view: View) -> str:
    if isinstance(view, str):
        return view + "\n"
    if isinstance(view, Table):
        return _plain_table(view)
    blocks = "".join(f"  {a.model} [{a.verdict}]\n    {a.text}\n" for a in view.answers)
    return f"\n{view.question}\n{blocks}"


def _plain_table(table: Table) -> str:
    rows = [list(table.columns), *(list(row) for row in table.rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.ljust(width) if index < table.left else cell.rjust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
    return (f"{table.title}\n" if table.title else "") + "".join(f"{line}\n" for line in lines)


def _console(stream: TextIO) -> "Console":
    from rich.console import Console

    return Console(file=stream, highlight=False)


def _rich(view: View) -> Any:
    from rich import box
    from rich.console import Group
    from rich.panel import Panel
    from rich.table import Table as RichTable
    from rich.text import Text

    if isinstance(view, str):
        return Text(view)
    if isinstance(view, Table):
        grid = RichTable(title=view.title or None, box=box.SIMPLE_HEAD, title_justify="left")
        for index, name in enumerate(view.columns):
            grid.add_column(name, justify="left" if index < view.left else "right", no_wrap=index == 0)
        for row in view.rows:
            grid.add_row(*(Text(cell) for cell in row))
        return grid
    beside = RichTable.grid(expand=True)
    for _ in view.answers:
        beside.add_column(ratio=1)
    beside.add_row(
        *(
            Panel(
                Text(answer.text),
                title=f"{answer.model} · {answer.verdict}",
                border_style="green" if answer.verdict == "pass" else "red",
            )
            for answer in view.answers
        )
    )
    return Group(Text(f"\n{view.question}", style="bold"), beside)


class _Bars:
    """A bar for each running stage, at the foot of the terminal."""

    def __init__(self, console: "Console") -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress: Progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
        )
        self._tasks: dict[str, TaskID] = {}
        self._progress.start()

    def event(self, kind: str, stage: str, fields: dict[str, Any]) -> None:
        if kind == "stage_started":
            self._tasks[stage] = self._progress.add_task(stage, total=None, unit="")
        elif kind == "progress" and stage in self._tasks:
            task = self._tasks[stage]
            self._progress.update(task, completed=fields["done"], total=fields["total"], unit=fields["unit"])
        elif kind in ("stage_finished", "stage_failed", "stage_stopped") and stage in self._tasks:
            self._progress.remove_task(self._tasks.pop(stage))

    def print(self, head: str, text: str, style: str) -> None:
        from rich.text import Text

        self._progress.console.print(Text.assemble((head, "bold cyan"), (text, style)), soft_wrap=True)

    def stop(self) -> None:
        self._progress.stop()
