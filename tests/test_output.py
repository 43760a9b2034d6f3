"""The one object that prints: on a terminal, in a pipe, as JSON."""

import io
import json
import re

import pytest

from r1pipe.errors import RunFailed, UsageError
from r1pipe.output import QUIET_SECONDS, Answer, Answers, Output, Table

TABLE = Table(["model", "pass@1"], [["base", "0.21"], ["zero", "0.760"]], title="Scores")
ROW = {"step": 1, "steps": 2, "reward": 0.5}


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that is moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def make(*, terminal: bool = False, as_json: bool = False, debug: bool = False) -> Output:
    """An output that writes into strings."""
    return Output(
        json=as_json,
        debug=debug,
        stdout=Terminal() if terminal else io.StringIO(),
        stderr=io.StringIO(),
        clock=Clock(),
    )


def text(output: Output) -> str:
    """What went to stdout."""
    assert isinstance(output.stdout, io.StringIO)
    return output.stdout.getvalue()


def errors(output: Output) -> str:
    """What went to stderr."""
    assert isinstance(output.stderr, io.StringIO)
    return output.stderr.getvalue()


def play(output: Output) -> None:
    """A short run."""
    output.event("run_started", "", run="runs/x", steps=[{"action": "run"}])
    output.event("stage_started", "zero", verb="rl", reasons=["never completed"], resumed=False)
    for done in range(3):
        output.event("progress", "zero", done=done, total=2, unit="steps")
    output.event("log", "zero", row=ROW)
    output.event("stage_finished", "zero", artifact="a", cost={"seconds": 2.0})
    output.event("run_finished", "", seconds=3.0, exit_code=0)


def test_a_table_in_a_pipe_is_aligned_text() -> None:
    """Words to the left, numbers to the right, nothing drawn."""
    output = make()
    output.result(None, TABLE)
    assert text(output) == "Scores\nmodel  pass@1\nbase     0.21\nzero    0.760\n"


def test_a_pipe_gets_plain_lines() -> None:
    """No carriage return, no escape sequence, one line for each event but the progress."""
    output = make()
    play(output)
    lines = text(output).splitlines()
    assert "\r" not in text(output) and "\x1b" not in text(output)
    assert [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in lines] == [
        "run runs/x: 1 of 1 stages to run",
        "zero         starts (rl): never completed",
        "zero         step 1/2  reward 0.500",
        "zero         done in 2.0 s: a",
        "done in 3.0 s",
    ]


def test_a_terminal_gets_the_same_lines_and_bars() -> None:
    """What is said does not depend on who listens; the bars are taken away at the end."""
    output = make(terminal=True)
    play(output)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", text(output))
    assert "zero         step 1/2  reward 0.500" in plain
    assert "\x1b[?25h" in text(output), "the cursor is shown again"


def test_json_is_one_document_on_stdout_and_the_run_goes_to_stderr() -> None:
    """`r1pipe run --json | jq` works, and whoever watches still sees the run."""
    output = make(as_json=True)
    play(output)
    output.result({"models": {"base": {"pass_at_1": 0.21}}}, TABLE)
    assert json.loads(text(output)) == {"models": {"base": {"pass_at_1": 0.21}}}
    assert "step 1/2  reward 0.500" in errors(output)


def test_a_stage_without_rows_is_still_heard_of_in_a_pipe() -> None:
    """Sampling logs no rows; every half minute it says how far it is."""
    output = make()
    assert isinstance(output.clock, Clock)
    output.event("stage_started", "traces", verb="sample", reasons=[], resumed=False)
    for done in (1, 2, 3):
        output.event("progress", "traces", done=done, total=9, unit="completions")
    output.clock.now += QUIET_SECONDS
    for done in (4, 5):
        output.event("progress", "traces", done=done, total=9, unit="completions")
    assert [line.split(maxsplit=2)[2] for line in text(output).splitlines()] == [
        "starts (sample)",
        "4/9 completions",
    ]


def test_an_error_is_its_message() -> None:
    """On stderr, without a traceback; stdout stays clean."""
    output = make()
    output.error(UsageError("There is no recipe 'x'. Write its path."))
    assert errors(output) == "r1pipe: There is no recipe 'x'. Write its path.\n"
    assert text(output) == ""


def test_debug_shows_where_an_error_comes_from() -> None:
    """The traceback stands before the message."""
    output = make(debug=True)
    try:
        raise RunFailed("The disk is full.")
    except RunFailed as error:
        output.error(error)
    assert errors(output).startswith("Traceback")
    assert errors(output).endswith("r1pipe: The disk is full.\n")


def test_an_error_under_json_is_json_too() -> None:
    """A program reads the message and the exit code where it reads everything."""
    output = make(as_json=True)
    output.error(UsageError("No."))
    assert json.loads(text(output)) == {"error": "No.", "exit_code": 2}


@pytest.mark.parametrize("terminal", [False, True])
def test_answers_stand_with_their_verdicts(terminal: bool) -> None:
    """Every model is named with what was said of its answer."""
    output = make(terminal=terminal)
    output.result(
        None, Answers("nums 5 6 4 to 34", [Answer("base", "fail", "no"), Answer("r1", "pass", "yes")])
    )
    for expected in ("nums 5 6 4 to 34", "base", "fail", "r1", "pass", "yes"):
        assert expected in text(output)


def test_brackets_in_a_cell_are_no_markup() -> None:
    """A model may write anything, `[/bold]` too."""
    output = make(terminal=True)
    output.result(None, Table(["x"], [["[/bold] [red]"]]), "[/b]")
    assert "[/bold] [red]" in text(output) and "[/b]" in text(output)


def test_a_log_in_a_narrow_encoding_goes_on() -> None:
    """In an ASCII log a sign that it does not have becomes a question mark."""
    raw = io.BytesIO()
    output = Output(stdout=io.TextIOWrapper(raw, encoding="ascii"), stderr=io.StringIO())
    output.result(None, "0.742 ± 0.021")
    assert raw.getvalue() == b"0.742 ? 0.021\n"
