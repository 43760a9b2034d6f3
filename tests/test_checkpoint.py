"""A checkpoint from outside is judged before anything is loaded, and each missing piece says what to do."""

import json
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from r1pipe.artifact import open_checkpoint
from r1pipe.checkpoint import checkpoint_problems
from r1pipe.errors import UsageError
from tests.folders import checkpoint, safetensors

INDEX = "model.safetensors.index.json"
SECOND = "model-00002-of-00003.safetensors"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n"


@pytest.mark.parametrize("shards", [0, 3])
def test_a_whole_checkpoint_has_no_problems(tmp_path: Path, shards: int) -> None:
    """One weight file or an index with all its shards."""
    assert checkpoint_problems(checkpoint(tmp_path, shards=shards)) == []


@pytest.mark.parametrize(
    "files", [["tokenizer.model"], ["vocab.json", "merges.txt"], ["vocab.txt"]], ids=lambda names: names[0]
)
def test_every_kind_of_tokenizer_is_known(tmp_path: Path, files: list[str]) -> None:
    """Older checkpoints have no tokenizer.json."""
    checkpoint(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    for name in files:
        (tmp_path / name).write_text("{}")
    assert checkpoint_problems(tmp_path) == []


def remove(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_text(text))


def cut(name: str, by: int) -> Callable[[Path], None]:
    return lambda folder: void((folder / name).write_bytes((folder / name).read_bytes()[:-by]))


def void(_: object) -> None:
    return None


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove("config.json"), "Its config.json is missing. Copy or download"),
        (
            write("config.json", '{"model_ty'),
            "Its config.json is cut short or damaged (no JSON). Copy or download",
        ),
        (write("config.json", "{}"), "Its config.json names no model_type"),
        (write("config.json", '"text"'), "Its config.json names no model_type"),
        (
            remove("model.safetensors"),
            "It has no weights: neither model.safetensors nor model.safetensors.index.json",
        ),
        (cut("model.safetensors", 1), "Its model.safetensors is cut short: it has "),
        (write("model.safetensors", ""), "Its model.safetensors is cut short: it has 0 bytes"),
        (
            write("model.safetensors", LFS),
            "Its model.safetensors is a git-lfs pointer, not the file. Run `git lfs",
        ),
        (
            write("model.safetensors", "\2\0\0\0\0\0\0\0{]"),
            "Its model.safetensors has a damaged header. Copy",
        ),
        (
            remove("tokenizer.json"),
            "It has no tokenizer (tokenizer.json). Copy the tokenizer files of the model",
        ),
        (write("tokenizer.json", "{"), "Its tokenizer.json is cut short or damaged"),
        (write("tokenizer.json", LFS), "Its tokenizer.json is a git-lfs pointer"),
    ],
)
def test_each_missing_piece_is_one_problem_with_the_way_out(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    """One damage, one problem, and it is said in the error that the user meets."""
    damage(checkpoint(tmp_path))
    problems = checkpoint_problems(tmp_path)
    assert len(problems) == 1
    assert problems[0].startswith(message)
    with pytest.raises(UsageError) as caught:
        open_checkpoint(tmp_path)
    assert str(caught.value) == f"'{tmp_path}' cannot be used as a checkpoint. {problems[0]}"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove(SECOND), f"1 of its 3 shards are missing: {SECOND}. Copy or download"),
        (cut(SECOND, 8), f"Its {SECOND} is cut short"),
        (
            lambda folder: void(safetensors(folder / SECOND, "other")),
            "Its shards lack 1 tensors of the index, e.g. t1",
        ),
        (write(INDEX, "{}"), f"Its {INDEX} has no weight_map"),
        (
            write(INDEX, '{"weight_map": {"a": "../x"}}'),
            f"Its {INDEX} names a file outside the folder: '../x'",
        ),
        (write(INDEX, '{"weight'), f"Its {INDEX} is cut short"),
    ],
)
def test_every_shard_of_an_index_is_looked_at(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    """A download that stopped halfway leaves whole files, half ones and none."""
    damage(checkpoint(tmp_path, shards=3))
    problems = checkpoint_problems(tmp_path)
    assert len(problems) == 1
    assert problems[0].startswith(message)


def test_every_cut_of_a_weight_file_is_found(tmp_path: Path) -> None:
    """The header says how long the file is, so any shorter or longer file is told from a whole one."""
    path = checkpoint(tmp_path) / "model.safetensors"
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        assert len(checkpoint_problems(tmp_path)) == 1, length
    path.write_bytes(whole + b"x")
    assert "is damaged: it has" in checkpoint_problems(tmp_path)[0]


def test_a_header_length_that_lies_is_found(tmp_path: Path) -> None:
    """Eight random bytes may announce an exabyte; nothing of that size is read."""
    path = checkpoint(tmp_path) / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**63) + b"{}")
    assert "is cut short" in checkpoint_problems(tmp_path)[0]


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    """A half-written folder is described whole."""
    checkpoint(tmp_path)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        (tmp_path / name).unlink()
    assert len(checkpoint_problems(tmp_path)) == 3


def test_pickled_weights_and_adapters_say_how_to_convert(tmp_path: Path) -> None:
    """What is not opened on purpose: pickles, and adapters without their model."""
    folder = checkpoint(tmp_path / "pickled")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert "save_pretrained" in checkpoint_problems(folder)[0]
    (folder / "config.json").rename(folder / "adapter_config.json")
    assert checkpoint_problems(folder)[0].startswith("It is a LoRA adapter without its model. Merge it first")


def test_a_folder_of_checkpoints_names_them(tmp_path: Path) -> None:
    """A trainer's output folder is often given instead of the checkpoint in it."""
    checkpoint(tmp_path / "checkpoint-100")
    checkpoint(tmp_path / "checkpoint-200")
    assert checkpoint_problems(tmp_path) == [
        "It holds checkpoints but is none itself. Give one of them: checkpoint-100, checkpoint-200."
    ]


def test_a_link_to_nowhere_is_told_from_a_missing_file(tmp_path: Path) -> None:
    """The hub's cache is made of links; cleaning it by hand leaves them hanging."""
    checkpoint(tmp_path, shards=3)
    (tmp_path / SECOND).unlink()
    (tmp_path / SECOND).symlink_to("gone")
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to("gone")
    config, shard = checkpoint_problems(tmp_path)
    assert config.startswith("Its config.json is a link to nowhere.")
    assert shard.startswith(f"1 of its 3 shards are missing: {SECOND}")


@pytest.mark.slow
def test_what_the_library_writes_is_whole_and_what_it_cannot_open_is_not(tmp_path: Path) -> None:
    """The real safetensors library agrees with the header's reading: whole opens, one byte less does not."""
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file, save_file

    path = checkpoint(tmp_path) / "model.safetensors"
    save_file({"w": np.arange(6, dtype=np.float32), "empty": np.zeros(0, np.float32)}, path)
    assert checkpoint_problems(tmp_path) == []
    assert sorted(json.loads(path.read_bytes()[8:].split(b"}}")[0] + b"}}")) == ["empty", "w"]
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(SafetensorError):
        load_file(path)
    assert len(checkpoint_problems(tmp_path)) == 1
