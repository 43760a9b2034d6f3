"""Compressed files: written, read, and refused where they are cut short or damaged."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from r1pipe import jsonl
from r1pipe.errors import EnvironmentUnfit, UsageError

ROWS = [{"id": number, "text": "the same words again " * 20} for number in range(2000)]


def test_rows_come_back(tmp_path: Path) -> None:
    """A file and a dataset's folder of compressed parts, the file a small part of its rows' size."""
    file = tmp_path / "part-00000.jsonl.zst"
    jsonl.write_rows(file, ROWS)
    assert file.stat().st_size < 0.1 * sum(len(jsonl.dumps(row)) for row in ROWS)
    assert list(jsonl.iter_rows(file)) == list(jsonl.iter_rows(tmp_path)) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.jsonl.zst"]


def test_several_frames(tmp_path: Path) -> None:
    """Files joined end to end are one file, as for gzip."""
    one, two, both = (tmp_path / f"{name}.jsonl.zst" for name in ("one", "two", "both"))
    jsonl.write_rows(one, ROWS[:3])
    jsonl.write_rows(two, ROWS[3:])
    both.write_bytes(one.read_bytes() + two.read_bytes())
    assert list(jsonl.iter_rows(both)) == ROWS


@pytest.mark.parametrize("change", ["cut", "flip", "no frame"])
def test_what_is_broken_is_refused(tmp_path: Path, change: str) -> None:
    """A file that is cut short is no shorter data set, and a changed byte no other one."""
    file = tmp_path / "rows.jsonl.zst"
    jsonl.write_rows(file, ROWS)
    whole = file.read_bytes()
    flipped = whole[:-1] + bytes([whole[-1] ^ 1])
    file.write_bytes({"cut": whole[:-9], "flip": flipped, "no frame": b'{"id": 1}\n'}[change])
    said = "cut short" if change == "cut" else "damaged"
    with pytest.raises(UsageError, match=f"cannot be read: the compressed file is {said}"):
        list(jsonl.iter_rows(file))


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said with what to install."""
    real = builtins.__import__

    def without(name: str, *args: Any) -> Any:
        if name == "zstandard":
            raise ImportError(name)
        return real(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EnvironmentUnfit, match=r"pip install 'r1pipe\[zstd\]'"):
        jsonl.write_rows(tmp_path / "rows.jsonl.zst", ROWS)
