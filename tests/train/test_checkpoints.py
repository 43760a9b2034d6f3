"""A checkpoint counts when all of it is there, and never before."""

from pathlib import Path

from r1pipe.train import checkpoints


def written(folder: Path, step: int, *, sealed: bool = True) -> Path:
    checkpoint = folder / f"checkpoint-{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "model.safetensors").write_bytes(b"weights")
    (checkpoint / "trainer_state.json").write_text("{}")
    if sealed:
        checkpoints.seal(checkpoint)
    return checkpoint


def test_the_newest_whole_one_is_taken(tmp_path: Path) -> None:
    """Steps are compared as numbers: 10 is newer than 9."""
    written(tmp_path, 9)
    newest = written(tmp_path, 10)
    assert checkpoints.latest(tmp_path) == newest
    assert checkpoints.step_of(newest) == 10


def test_one_that_a_kill_cut_off_is_removed(tmp_path: Path) -> None:
    """Without the marker a folder is half a checkpoint; the one before it is gone on from."""
    before = written(tmp_path, 5)
    half = written(tmp_path, 10, sealed=False)
    assert checkpoints.latest(tmp_path) == before
    assert not half.exists()


def test_a_file_that_lost_bytes_does_not_count(tmp_path: Path) -> None:
    """The marker holds every file's size."""
    checkpoint = written(tmp_path, 5)
    (checkpoint / "model.safetensors").write_bytes(b"weig")
    assert not checkpoints.is_whole(checkpoint)
    assert checkpoints.latest(tmp_path) is None


def test_nothing_written_yet(tmp_path: Path) -> None:
    """No folder, no checkpoint; other folders are left alone."""
    assert checkpoints.latest(tmp_path / "trainer") is None
    (tmp_path / "checkpoint-best").mkdir()
    assert checkpoints.latest(tmp_path) is None
    assert (tmp_path / "checkpoint-best").is_dir()
