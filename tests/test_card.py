"""A published dataset opens with `datasets.load_dataset` as it is."""

import hashlib
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1pipe import jsonl
from r1pipe.artifact import Parent, Store
from r1pipe.card import dataset_card
from tests.folders import manifest

ROWS: list[dict[str, Any]] = [
    {
        "id": "a",
        "score": 1,
        "gold": {"numbers": [1, 2], "target": 3},
        "late": None,
        "prompt": [{"role": "user", "content": "q"}],
        "steps": [],
        "meta": {},
        "never": None,
    },
    {
        "id": "b",
        "score": 0.5,
        "gold": "red blue",
        "late": "text",
        "prompt": [],
        "steps": [[1], []],
        "meta": {"seed": 2**63},
        "never": None,
    },
]


def publish(tmp_path: Path) -> Path:
    """Publish the rows one per part, with rejects beside them."""
    work = tmp_path / "work"
    jsonl.write_shards(work, ROWS, rows_per_shard=1)
    jsonl.write_rows(work / "rejects.jsonl", [{"reason": "wrong"}])
    return Store(tmp_path).publish("traces", work, manifest("traces", "dataset")).path


def test_card_exact(tmp_path: Path) -> None:
    """The types are those of all rows: mixed columns are json, whole and broken numbers together float64."""
    jsonl.write_shards(tmp_path, ROWS, rows_per_shard=1)
    jsonl.write_rows(tmp_path / "rejects.jsonl", [{}])
    parent = Parent(role="model", name="base v002-aaaaaaaa", fingerprint="b" * 64, path="x")
    header, text = dataset_card(tmp_path, manifest("traces", "dataset", parents=(parent,)))[4:].split("---\n")
    rows = hashlib.sha256(b"".join(jsonl.dumps(row) + b"\n" for row in ROWS)).hexdigest()
    message = [{"name": "role", "dtype": "string"}, {"name": "content", "dtype": "string"}]
    assert yaml.safe_load(header) == {
        "configs": [
            {
                "config_name": "default",
                "description": f"sha256 of the rows: {rows}",
                "data_files": [{"split": "train", "path": "part-*.jsonl"}],
            },
        ],
        "dataset_info": {
            "features": [
                {"name": "id", "dtype": "string"},
                {"name": "score", "dtype": "float64"},
                {"name": "gold", "dtype": "json"},
                {"name": "late", "dtype": "string"},
                {"name": "prompt", "list": message},
                {"name": "steps", "list": {"list": "int64"}},
                {"name": "meta", "dtype": "json"},
                {"name": "never", "dtype": "string"},
            ]
        },
    }
    assert "2 rows, made by stage `traces`" in text
    assert "- model: base `bbbbbbbb`" in text
    assert "not loaded with them: rejects.jsonl." in text


def test_card_is_the_same_for_the_same_rows(tmp_path: Path) -> None:
    """Versions and dates are left out: making the same data again must give the same bytes."""
    jsonl.write_shards(tmp_path, ROWS)
    first = manifest("traces", "dataset")
    second = first.model_copy(update={"code_version": "9", "created": "later", "version": 7})
    assert dataset_card(tmp_path, first) == dataset_card(tmp_path, second)


@pytest.mark.slow
def test_load_dataset_reads_the_parts_and_nothing_else(tmp_path: Path) -> None:
    """The real library returns exactly the rows, in order, though rejects and a manifest lie beside them."""
    from datasets import load_dataset

    loaded = load_dataset(str(publish(tmp_path)), cache_dir=str(tmp_path / "cache"))
    assert list(loaded) == ["train"]
    assert list(loaded["train"]) == ROWS


@pytest.mark.slow
def test_load_dataset_does_not_mistake_one_dataset_for_another(tmp_path: Path) -> None:
    """Two folders of one name and the same columns, read one after the other, and then the first with other
    rows: each time the rows that are there, not those of the library's cache."""
    from datasets import load_dataset

    def read(run: str, rows: list[dict[str, int]]) -> list[dict[str, int]]:
        folder = tmp_path / run / "traces"
        jsonl.write_shards(folder, rows)
        (folder / "README.md").write_text(dataset_card(folder, manifest("traces", "dataset")))
        return list(load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))["train"])

    assert read("a", [{"n": 1}]) == [{"n": 1}]
    assert read("b", [{"n": 2}]) == [{"n": 2}]
    assert read("a", [{"n": 3}]) == [{"n": 3}]


@pytest.mark.slow
def test_load_dataset_without_the_card_fails(tmp_path: Path) -> None:
    """Why the card gives types: guessed from the first part they do not fit the second."""
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError

    folder = publish(tmp_path)
    (folder / "README.md").unlink()
    with pytest.raises(DatasetGenerationError):
        load_dataset(str(folder), data_files="part-*.jsonl", cache_dir=str(tmp_path / "cache"))
