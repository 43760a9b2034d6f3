"""Durable JSON Lines: nothing written is lost, whatever interrupts, and no reader sees half of it."""

import errno
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe import jsonl
from r1pipe.errors import RunFailed, UsageError
from r1pipe.jsonl import BadRow, Journal

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text('ab{}\n"', max_size=3), inner, max_size=3)
    ),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(st.text("abc", max_size=3), VALUES, max_size=3), min_size=1, max_size=6)


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    """Let the kernel refuse to grow any file beyond `size` bytes: a write that crosses it is cut short."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


def no_space(*_: Any) -> int:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


# --- Journal


@given(rows=ROWS, data=st.data())
def test_journal_survives_any_cut_of_its_last_line(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], data: st.DataObject
) -> None:
    """A kill leaves any prefix of the last line: all rows before it survive, the row whose object is whole
    survives too, what was cut off is kept beside, and a row appended afterwards is read back."""
    path = tmp_path_factory.mktemp("journal") / "rows.jsonl"
    with Journal(path) as journal:
        journal.append(rows)
    last = jsonl.dumps(rows[-1]) + b"\n"
    kept = data.draw(st.integers(0, len(last) - 1), label="bytes kept of the last line")
    before = path.stat().st_size - len(last)
    os.truncate(path, before + kept)

    with Journal(path) as journal:
        journal.append([{"after": True}])
        found = journal.rows()

    whole = kept == len(last) - 1
    assert found == [*(rows if whole else rows[:-1]), {"after": True}]
    assert journal.broken == []
    torn = path.with_name("rows.jsonl.torn")
    assert (torn.read_bytes() if torn.exists() else b"") == (
        b"" if whole or not kept else last[:kept] + b"\n"
    )


def test_journal_finds_the_start_of_a_torn_line_of_any_length(tmp_path: Path) -> None:
    """The search for the last newline crosses block borders, and a file may be one torn line."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a":1}\n{"text":"' + b"x" * 200_000)
    with Journal(path) as journal:
        assert journal.rows() == [{"a": 1}]
    path.write_bytes(b'{"text":"' + b"x" * 200_000)
    with Journal(path) as journal:
        assert journal.rows() == []
    assert path.with_name("rows.jsonl.torn").stat().st_size == 2 * (9 + 200_000 + 1)


def test_journal_passes_over_what_a_power_cut_left_in_the_middle(tmp_path: Path) -> None:
    """A block of zeros is listed in `broken` and stays in the file; the rows around it are read."""
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a":1}\n' + b"\0" * 5 + b'\n{"a":2}\n')
    with Journal(path) as journal:
        assert journal.rows() == [{"a": 1}, {"a": 2}]
        assert [(row.line, row.text) for row in journal.broken] == [(2, "\0" * 5)]
    assert path.stat().st_size == 22


def test_journal_rows_are_on_the_disk_when_the_writer_is_killed(tmp_path: Path) -> None:
    """SIGKILL right after `append` returned loses nothing: no buffer of the process holds rows."""
    path = tmp_path / "rows.jsonl"
    code = (
        "import os, signal, sys\nfrom r1pipe.jsonl import Journal\n"
        "Journal(sys.argv[1]).append([{'a': 1}, {'a': 2}])\nos.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)], cwd=Path(__file__).parent.parent, check=False
    )
    assert done.returncode == -signal.SIGKILL
    assert jsonl.read_rows(path) == ([{"a": 1}, {"a": 2}], [])


def test_journal_keeps_whole_lines_when_the_kernel_cuts_a_write_short(tmp_path: Path) -> None:
    """Of an append that does not fit the whole lines stay, the half one goes, and the journal can go on."""
    path = tmp_path / "rows.jsonl"
    with Journal(path) as journal:
        with file_size_limit(20), pytest.raises(RunFailed, match=r"rows\.jsonl' could not be written"):
            journal.append([{"a": 1}, {"a": 2}, {"a": 3}])
        assert path.read_bytes() == b'{"a":1}\n{"a":2}\n'
        journal.append([{"a": 3}])
        assert journal.rows() == [{"a": 1}, {"a": 2}, {"a": 3}]


def test_journal_on_a_full_disk_says_so_and_keeps_its_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ENOSPC becomes one sentence with the path and the way out, exit code 1."""
    with Journal(tmp_path / "rows.jsonl") as journal:
        journal.append([{"a": 1}])
        with monkeypatch.context() as patch:
            patch.setattr(os, "write", no_space)
            with pytest.raises(
                RunFailed, match=r"The disk is full: '.*rows\.jsonl'.* Free some space"
            ) as caught:
                journal.append([{"a": 2}])
        assert caught.value.exit_code == 1
        assert journal.rows() == [{"a": 1}]


def test_journal_writes_all_rows_or_none_that_cannot_be_written(tmp_path: Path) -> None:
    """A value without a JSON form is our mistake: it raises before anything is written."""
    with Journal(tmp_path / "rows.jsonl") as journal:
        with pytest.raises(TypeError):
            journal.append([{"a": 1}, {"a": object()}])
        journal.append([])
        assert journal.path.stat().st_size == 0


# --- Reading


def test_read_rows_sets_aside_every_kind_of_bad_row(tmp_path: Path) -> None:
    """Each bad line comes back with its place, its reason and its text; good ones around it are kept."""
    path = tmp_path / "data.jsonl"
    path.write_bytes(
        b'\xef\xbb\xbf{"question": "q", "answer": 0}\r\n'
        b"\n"
        b"[1, 2]\n"
        b'{"question": "q", "answer": null}\n'
        b'{"x": 1}\n'
        b'{"question": "\xff"}\n'
        b'{"question": "q", "answer": "a"}\n'
        b'{"question": "q'
    )
    rows, bad = jsonl.read_rows(path, require=["question", "answer"])
    assert rows == [{"question": "q", "answer": 0}, {"question": "q", "answer": "a"}]
    assert [(row.line, row.reason.split(" (")[0]) for row in bad] == [
        (3, "a JSON list, not an object"),
        (4, "no 'answer'; the row has: question, answer"),
        (5, "no 'question' and no 'answer'; the row has: x"),
        (6, "not JSON"),
        (8, "not JSON"),
    ]
    assert bad[3].text == '{"question": "\ufffd"}'
    assert bad[4].reason.endswith("; the file ends in the middle of a line")
    assert str(bad[0]) == f"{path}:3: a JSON list, not an object"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no data file"),
        (b"", "holds no rows: it is empty"),
        (b"\n \n", "holds no rows: it is empty"),
        (b"[\n1\n]\n", r"none of its 3 rows can be used\. The first: .*data\.jsonl:1: not JSON"),
    ],
)
def test_read_rows_without_rows_is_a_usage_error(tmp_path: Path, content: bytes | None, message: str) -> None:
    """A missing, an empty and a wholly unusable file each say so."""
    path = tmp_path / "data.jsonl"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        jsonl.read_rows(path)


def test_read_rows_of_a_folder_reads_its_parts_in_order_and_nothing_else(tmp_path: Path) -> None:
    """Rejects and the manifest lie in the same folder and are not rows."""
    jsonl.write_shards(tmp_path, [{"i": i} for i in range(25)], rows_per_shard=2)
    jsonl.write_rows(tmp_path / "rejects.jsonl", [{"i": -1}])
    assert [row["i"] for row in jsonl.read_rows(tmp_path)[0]] == list(range(25))


def test_a_folder_without_parts_names_what_could_be_meant(tmp_path: Path) -> None:
    """A folder that holds train.jsonl is answered with that name."""
    with pytest.raises(UsageError, match="no dataset"):
        jsonl.read_rows(tmp_path)
    jsonl.write_rows(tmp_path / "train.jsonl", [{"a": 1}])
    with pytest.raises(UsageError, match=r"Give one of its files: train\.jsonl"):
        jsonl.read_rows(tmp_path)


def test_iter_rows_stops_at_the_first_bad_row(tmp_path: Path) -> None:
    """The strict reader names file and line; what came before was yielded."""
    path = tmp_path / "data.jsonl"
    path.write_text('{"a": 1}\n{"a": \n')
    rows = jsonl.iter_rows(path)
    assert next(rows) == {"a": 1}
    with pytest.raises(UsageError, match=r"data\.jsonl:2: not JSON.*Correct or remove this line"):
        next(rows)


# --- Writing


def test_write_shards_leaves_these_rows_and_no_others(tmp_path: Path) -> None:
    """Parts of a longer earlier attempt go away; other files stay; no rows make one empty part."""
    assert jsonl.write_shards(tmp_path, ({"i": i} for i in range(5)), rows_per_shard=2) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"part-0000{i}.jsonl" for i in range(3)]
    (tmp_path / "README.md").write_text("kept")
    assert jsonl.write_shards(tmp_path, [{"i": 9}], rows_per_shard=2) == 1
    assert jsonl.read_rows(tmp_path)[0] == [{"i": 9}]
    assert jsonl.write_shards(tmp_path, []) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "part-00000.jsonl"]


def test_write_rows_takes_rows_that_were_set_aside(tmp_path: Path) -> None:
    """A quarantine file is one row for each bad one, with its reason."""
    assert jsonl.write_rows(tmp_path / "bad.jsonl", [BadRow("f", 3, "why", "text")]) == 1
    assert jsonl.read_rows(tmp_path / "bad.jsonl")[0] == [
        {"path": "f", "line": 3, "reason": "why", "text": "text"}
    ]


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_file_is_replaced_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whichever step a full disk stops, the old content stands and nothing is left beside it."""
    path = tmp_path / "deep" / "run.json"
    jsonl.write_json(path, {"old": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, step, no_space)
        with pytest.raises(RunFailed, match="The disk is full"):
            jsonl.write_json(path, {"new": 2})
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert list(path.parent.iterdir()) == [path]


def test_what_the_file_system_refuses_is_one_sentence(tmp_path: Path) -> None:
    """A file where a folder has to be: no traceback, the path and the reason."""
    (tmp_path / "taken").write_text("")
    with pytest.raises(
        RunFailed, match=r"taken/x\.json' could not be written: (File exists|Not a directory)"
    ):
        jsonl.write_json(tmp_path / "taken" / "x.json", {})


def test_dumps_knows_numpy_and_has_no_nan() -> None:
    """Metrics come as numpy numbers; JSON has no NaN."""
    import numpy as np

    assert (
        jsonl.dumps({"a": np.float32(0.5), "b": np.int64(3), "c": float("nan")})
        == b'{"a":0.5,"b":3,"c":null}'
    )


def test_integers_of_any_length_stay_exact(tmp_path: Path) -> None:
    """A gold answer beyond 64 bits must not come back as a float that is nearly it."""
    rows = [{"gold": 2**64}, {"gold": [-(2**63) - 1, {"x": 10**40}]}, {"gold": 2**64 - 1}, {"gold": 1e300}]
    jsonl.write_rows(tmp_path / "rows.jsonl", rows)
    assert (tmp_path / "rows.jsonl").read_text().splitlines()[0] == '{"gold":18446744073709551616}'
    found = jsonl.read_rows(tmp_path / "rows.jsonl")[0]
    assert repr(found) == repr(rows)
