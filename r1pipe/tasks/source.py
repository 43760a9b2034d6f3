"""Rows of tasks from where they lie: JSON Lines, plain or gzipped, a dataset's folder, Parquet, the hub."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from r1pipe import jsonl
from r1pipe.errors import EnvironmentUnfit, UsageError


@dataclass(frozen=True, slots=True)
class Located:
    """A row and where it stands."""

    path: str
    line: int
    """Counted from 1."""
    row: jsonl.Row

    def bad(self, reason: str) -> jsonl.BadRow:
        """The row as one that was set aside."""
        return jsonl.BadRow(self.path, self.line, reason, _text(self.row))


def read_path(path: Path | str) -> tuple[list[Located], list[jsonl.BadRow]]:
    """The rows of a `.jsonl`, `.jsonl.gz` or `.parquet` file or of a dataset's folder, and the broken ones.

    Raises:
        UsageError: nothing is there, it cannot be read, or it holds no rows.
    """
    path = Path(path).expanduser()
    if path.suffix.lower() == ".parquet":
        rows, bad = list(_parquet(path)), []
    else:
        found = [(part, *each) for part in jsonl.parts(path) for each in jsonl.scan(part)]
        rows = [Located(str(part), line, row) for part, line, row in found if isinstance(row, dict)]
        bad = [row for _, _, row in found if isinstance(row, jsonl.BadRow)]
    if not rows:
        broken = f"none of its {len(bad)} rows can be read. The first: {bad[0]}." if bad else "it is empty."
        raise UsageError(f"The data '{path}' holds no rows: {broken}")
    return rows, bad


def read_hub(name: str, config: str | None, split: str, revision: str | None) -> list[Located]:
    """The rows of a data set on the Hugging Face hub, downloaded or found among what was before.

    Raises:
        UsageError: there is no such data set, config, split or revision.
        EnvironmentUnfit: the hub cannot be reached, and the data set is not on this machine.
    """
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError

    shown = f"{name}{f' ({config})' if config else ''}"
    try:
        table = load_dataset(name, config, split=split, revision=revision)
    except (ConnectionError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise UsageError(
                f"There is no data set {shown!r} on the hub: {error}. Check the spelling."
            ) from error
        raise EnvironmentUnfit(
            f"The data set {shown!r} is not on this machine, and the hub cannot be reached: {error}. Check "
            f"the network and HF_HUB_OFFLINE, or get it by hand (`hf download --repo-type dataset {name}`) "
            "and give its file as `path`."
        ) from error
    except (DatasetsError, ValueError) as error:
        raise UsageError(
            f"The data set {shown!r} cannot be read: {error}. Check dataset_config and dataset_split."
        ) from error
    return [Located(f"{name}:{split}", number, dict(row)) for number, row in enumerate(table, 1)]


def _parquet(path: Path) -> Iterator[Located]:
    import pyarrow
    from pyarrow import parquet

    if not path.is_file():
        raise UsageError(f"There is no data file '{path}'. Check the path.")
    try:
        rows = parquet.read_table(path).to_pylist()
    except (pyarrow.ArrowException, OSError, OverflowError, ValueError) as error:
        raise UsageError(f"'{path}' cannot be read as Parquet: {error}.") from error
    for number, row in enumerate(rows, 1):
        yield Located(str(path), number, row)


def _text(row: dict[str, Any]) -> str:
    try:
        return jsonl.dumps(row).decode()
    except (TypeError, ValueError):  # Parquet knows types and numbers that JSON does not
        return str(row)
