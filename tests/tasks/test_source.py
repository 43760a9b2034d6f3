"""Rows from where they lie."""

import gzip
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from r1pipe.errors import EnvironmentUnfit, UsageError
from r1pipe.tasks import task_spec
from r1pipe.tasks.source import Located, read_hub, read_path

TEXT = '{"question": "1 + 1", "answer": "2"}\nnonsense\n\n{"question": "2 + 2", "answer": "4"}\n'


def test_json_lines(tmp_path: Path) -> None:
    """Plain, gzipped, or a dataset's folder: the same rows with their lines, and what is broken."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "part-00000.jsonl").write_text(TEXT)
    with gzip.open(tmp_path / "a.jsonl.gz", "wt") as file:
        file.write(TEXT)
    for path in (tmp_path / "a.jsonl.gz", tmp_path / "folder"):
        rows, bad = read_path(path)
        assert [(row.line, row.row["answer"]) for row in rows] == [(1, "2"), (4, "4")]
        assert [(row.line, row.text) for row in bad] == [(2, "nonsense")]


def test_parquet(tmp_path: Path) -> None:
    """Rows with their numbers; values that JSON does not know are kept."""
    path = tmp_path / "a.parquet"
    parquet.write_table(pyarrow.Table.from_pylist([{"question": "q", "raw": b"\xff"}]), path)
    (row,), bad = read_path(path)
    assert (row, bad) == (Located(str(path), 1, {"question": "q", "raw": b"\xff"}), [])
    assert row.bad("because").text == "{'question': 'q', 'raw': b'\\xff'}"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.gz", b"no gzip", "cannot be read: Not a gzipped file"),
        ("b.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 99, mtime=0)[:30], "cannot be read"),
        ("a.parquet", b"no parquet", "cannot be read as Parquet"),
        ("a.jsonl", b"", "holds no rows: it is empty"),
        ("b.jsonl", b"nonsense\n", "none of its 1 rows can be read"),
    ],
)
def test_what_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    """A damaged or empty file is told as such."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message):
        read_path(tmp_path / name)
    with pytest.raises(UsageError, match=r"no data file '.*nothing\.parquet'"):
        read_path(tmp_path / "nothing.parquet")


@pytest.fixture
def data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set as the hub has them, in a folder that `load_dataset` takes for it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "org" / "sums"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text('{"problem": "1 + 1", "solution": "so \\\\boxed{2}"}\n')
    (folder / "test.jsonl").write_text('{"problem": "2 + 2", "solution": "so \\\\boxed{4}"}\n')
    return "org/sums"


def test_a_data_set_as_a_task(data_set: str) -> None:
    """By its name, one of its splits, with the right answer out of a worked solution."""
    task = task_spec({"name": "math", "dataset": data_set, "dataset_split": "test"}).make()
    assert [(item.question, item.gold) for item in task.items("all", None, 0)] == [("2 + 2", "4")]
    with pytest.raises(UsageError, match=r"cannot be read: .*Check dataset_config and dataset_split"):
        read_hub(data_set, None, "validation", None)


def test_a_data_set_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network the message tells how to go on by hand."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises((EnvironmentUnfit, UsageError), match="no/such"):
        read_hub("no/such", None, "train", None)


def test_what_nests_too_deep_is_set_aside(tmp_path: Path) -> None:
    """One such line costs the others nothing."""
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": ' + "[" * 3000 + "1e300" + "]" * 3000 + '}\n{"question": "q"}\n')
    rows, bad = read_path(path)
    assert [row.row for row in rows] == [{"question": "q"}] and bad[0].line == 1


def test_parquet_with_what_python_cannot_hold(tmp_path: Path) -> None:
    """A day beyond all dates is one message."""
    path = tmp_path / "a.parquet"
    days = pyarrow.array([2**31 - 1], pyarrow.int32()).cast(pyarrow.date32())
    parquet.write_table(pyarrow.table({"at": days}), path)
    with pytest.raises(UsageError, match="cannot be read as Parquet"):
        read_path(path)
