"""Artifacts: published whole or not at all, never changed, found by fingerprint, checked and traced back."""

import errno
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from r1pipe import artifact as module
from r1pipe import jsonl
from r1pipe.artifact import Artifact, Parent, Store, lineage, open_checkpoint, open_dataset, verify
from r1pipe.errors import Conflict, RunFailed, UsageError
from r1pipe.manifest import code_version, library_versions, load_manifest
from tests.folders import checkpoint, manifest


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "run")


def publish(store: Store, stage: str = "sft", fingerprint: str = "1f3a9c2e", **more: Any) -> Artifact:
    """Make a checkpoint in the run's work folder and publish it."""
    folder = checkpoint(store.run_dir / "work" / stage / "out")
    return store.publish(stage, folder, manifest(stage, fingerprint=fingerprint, **more))


def snapshot(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Every file's bytes and time of change."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file()
    }


# --- Publishing


def test_publish_makes_the_next_version_with_every_file_in_its_manifest(store: Store) -> None:
    """The folder's name, the manifest's entries and what a reader sees agree; the work folder is gone."""
    artifact = publish(store)
    assert artifact.path == store.run_dir / "artifacts" / "sft" / "v001-1f3a9c2e"
    assert artifact.name == "sft v001-1f3a9c2e"
    assert artifact.kind == "checkpoint"
    assert artifact.run_dir == store.run_dir.resolve()
    assert store.versions("sft") == [artifact]
    assert not (store.run_dir / "work" / "sft" / "out").exists()
    assert artifact.manifest is not None
    assert [(entry.path, entry.size, entry.sha256) for entry in artifact.manifest.files][:1] == [
        ("config.json", 23, "a2207d50253951ebe6dac2b4e5abe11f76fa3565c693330b8a5449e9b3a983e4")
    ]
    assert [entry.path for entry in artifact.manifest.files] == [
        "config.json",
        "model.safetensors",
        "tokenizer.json",
    ]
    assert artifact.manifest.code_version == code_version()
    assert artifact.manifest.libraries == library_versions()


def test_versions_count_up_even_when_older_ones_are_removed(store: Store) -> None:
    """A number that was given out is never given again: `v002` in somebody's notes stays what it was."""
    names = [publish(store).path.name for _ in range(2)]
    shutil.rmtree(store.root / "sft" / names[0])
    shutil.rmtree(store.root / "sft" / names[1])
    names.append(publish(store, fingerprint="abcdef01").path.name)
    (store.root / "sft" / ".last-version").unlink()
    names.append(publish(store).path.name)
    assert names == ["v001-1f3a9c2e", "v002-1f3a9c2e", "v003-abcdef01", "v004-1f3a9c2e"]


def test_a_published_version_is_never_touched_by_later_ones(store: Store) -> None:
    """Publishing the same fingerprint again adds a version and leaves the first one's bytes and times."""
    first = publish(store)
    before = snapshot(first.path)
    second = publish(store)
    assert snapshot(first.path) == before
    assert store.find("sft", first.fingerprint) == second
    assert store.latest("sft") == second


def test_a_folder_in_the_way_is_not_overwritten(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Should two processes get one number, the second stops; `rename` alone would replace an empty folder."""
    (store.root / "sft" / "v001-1f3a9c2e").mkdir(parents=True)
    monkeypatch.setattr(Store, "_next_number", lambda *_: 1)
    with pytest.raises(Conflict, match="already there"):
        publish(store)
    assert (store.run_dir / "work" / "sft" / "out" / "config.json").exists()


@pytest.mark.parametrize("where", ["seal", "write_json", "rename", "model_copy"])
def test_publish_stopped_anywhere_loses_nothing(
    store: Store, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Stopped before the rename the work is still there, no version is seen, and the next try succeeds."""
    owner = {"seal": module, "write_json": jsonl, "rename": os, "model_copy": module.Manifest}[where]

    def stop(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(owner, where, stop)
        with pytest.raises(KeyboardInterrupt):
            publish(store)
    assert store.versions("sft") == []
    folder = store.run_dir / "work" / "sft" / "out"
    (folder / ".config.json.tmp").write_text("left by a kill")
    artifact = store.publish("sft", folder, manifest("sft"))
    assert verify(artifact, deep=True) == []
    assert "manifest.json" not in [entry.path for entry in load(artifact).files]


def test_publish_on_a_full_disk_keeps_the_work(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy that does not fit is taken away again; the original stays, the message says what to do."""

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    outside = checkpoint(tmp_path / "elsewhere")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copy2", full)
        with pytest.raises(RunFailed, match="The disk is full"):
            store.publish("sft", outside, manifest("sft"))
    assert [path.name for path in (store.root / "sft").iterdir()] == []
    assert checkpoint_files(outside) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert store.publish("sft", outside, manifest("sft")).path.name == "v001-1f3a9c2e"


def test_a_folder_from_outside_is_copied_and_links_become_files(store: Store, tmp_path: Path) -> None:
    """The user's own folder stays; a hub cache's links are followed; hidden files stay behind."""
    outside = checkpoint(tmp_path / "model")
    blob = (outside / "model.safetensors").rename(tmp_path / "blob")
    (outside / "model.safetensors").symlink_to(blob)
    (outside / ".git").mkdir()
    (outside / ".git" / "HEAD").write_text("x")
    artifact = store.publish("base", outside, manifest("base"))
    copied = artifact.path / "model.safetensors"
    assert not copied.is_symlink()
    assert copied.read_bytes() == blob.read_bytes()
    assert checkpoint_files(artifact.path) == {
        "config.json",
        "manifest.json",
        "model.safetensors",
        "tokenizer.json",
    }
    assert (outside / "config.json").exists()


def test_an_artifact_of_the_run_is_copied_not_moved(store: Store) -> None:
    """Handing a published folder in as a result does not take it from where it is."""
    first = publish(store)
    second = store.publish("copy", first.path, manifest("copy"))
    assert verify(first, deep=True) == []
    assert verify(second, deep=True) == []


def test_copies_left_by_a_kill_are_never_versions_and_go_away(store: Store) -> None:
    """`.partial-*` is only ever a copy: its original is elsewhere."""
    (store.root / "sft" / ".partial-1").mkdir(parents=True)
    (store.root / "sft" / "v009-00000000").mkdir()
    assert store.versions("sft") == []
    assert publish(store).path.name == "v010-1f3a9c2e"
    assert not (store.root / "sft" / ".partial-1").exists()


def test_what_cannot_be_opened_is_not_published(store: Store) -> None:
    """A checkpoint without weights, a dataset without rows, no folder: the run failed and the work stays."""
    folder = checkpoint(store.run_dir / "work" / "sft")
    (folder / "model.safetensors").unlink()
    with pytest.raises(RunFailed, match=r"made no whole checkpoint.*It has no weights"):
        store.publish("sft", folder, manifest("sft"))
    jsonl.write_shards(folder, [])
    with pytest.raises(RunFailed, match=r"made no rows\. What it left, rejects included, is in"):
        store.publish("sft", folder, manifest("sft", "dataset"))
    with pytest.raises(RunFailed, match="made nothing"):
        store.publish("sft", folder / "none", manifest("sft"))
    assert checkpoint_files(folder) == {"config.json", "part-00000.jsonl", "tokenizer.json"}


def test_metrics_of_numpy_and_nan_come_back_as_json_has_them(store: Store) -> None:
    """The artifact that `publish` returns is the one that a reader finds."""
    import numpy as np

    folder = checkpoint(store.run_dir / "work")
    given = manifest("sft").model_copy(update={"metrics": {"loss": np.float32(0.5), "kl": float("nan")}})
    artifact = store.publish("sft", folder, given)
    assert load(artifact).metrics == {"loss": 0.5, "kl": None}
    assert store.latest("sft") == artifact


def test_a_stage_name_cannot_leave_the_store(store: Store) -> None:
    """Names become folders."""
    for name in ("../x", "a/b", ".hidden", ""):
        with pytest.raises(UsageError, match="no name for a stage"):
            store.publish(name, store.run_dir, manifest(name))


# --- Finding


def test_find_looks_through_the_whole_history(store: Store) -> None:
    """Changing a value and changing it back finds the first version again."""
    first = publish(store, fingerprint="aaaaaaaa")
    publish(store, fingerprint="bbbbbbbb")
    assert store.find("sft", first.fingerprint) == first
    assert store.find("sft", "c" * 64) is None
    assert store.latest("other") is None


def test_a_damaged_manifest_is_no_artifact_and_a_newer_one_is_an_error(store: Store) -> None:
    """What is damaged is made again; what a newer r1pipe wrote must not be."""
    path = publish(store).path / "manifest.json"
    text = path.read_text()
    path.write_text(text.replace('"schema_version": 1', '"schema_version": 2'))
    with pytest.raises(UsageError, match="A newer r1pipe wrote it"):
        store.versions("sft")
    path.write_text(text[:-20])
    assert store.versions("sft") == []


# --- Opening


def test_open_checkpoint_of_ours_and_from_outside(store: Store, tmp_path: Path) -> None:
    """Ours has its manifest and fingerprint; one from outside has the hash of its files, wherever it lies."""
    ours = publish(store)
    assert open_checkpoint(ours.path) == ours
    outside = open_checkpoint(str(checkpoint(tmp_path / "a")))
    assert (outside.name, outside.manifest, outside.run_dir) == ("a", None, None)
    assert open_checkpoint(checkpoint(tmp_path / "b")).fingerprint == outside.fingerprint
    assert len(outside.fingerprint) == 64


def test_an_outside_checkpoints_fingerprint_is_of_what_is_loaded(tmp_path: Path) -> None:
    """Weights, config, tokenizer and templates count; a trainer's leftovers and other formats do not."""
    folder = checkpoint(tmp_path / "m", shards=2)
    before = open_checkpoint(folder).fingerprint
    for name in ("README.md", "optimizer.pt", "trainer_state.json", "pytorch_model.bin", "other.safetensors"):
        (folder / name).write_text("{}")
    assert open_checkpoint(folder).fingerprint == before
    (folder / "chat_template.jinja").write_text("x")
    changed = open_checkpoint(folder).fingerprint
    assert changed != before
    weights = folder / "model-00002-of-00002.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert open_checkpoint(folder).fingerprint not in (before, changed)


def test_open_dataset_of_ours_of_parts_and_of_a_file(store: Store, tmp_path: Path) -> None:
    """The same rows; a renamed file is the same data, another row is not."""
    rows = [{"a": 1}, {"a": 2}]
    work = store.run_dir / "work"
    jsonl.write_shards(work, rows)
    ours = store.publish("data", work, manifest("data", "dataset"))
    assert open_dataset(ours.path) == ours
    jsonl.write_rows(tmp_path / "one.jsonl", rows)
    jsonl.write_rows(tmp_path / "two.jsonl", rows)
    one, two = open_dataset(tmp_path / "one.jsonl"), open_dataset(str(tmp_path / "two.jsonl"))
    assert ours.rows() == one.rows() == two.rows() == rows
    assert (one.name, one.fingerprint) == ("one.jsonl", two.fingerprint)
    jsonl.write_rows(tmp_path / "two.jsonl", rows[:1])
    assert open_dataset(tmp_path / "two.jsonl").fingerprint != one.fingerprint
    assert one.read_rows(require=["a"]) == (rows, [])


@pytest.mark.parametrize(
    ("opener", "make", "message"),
    [
        (open_checkpoint, "nothing", "A checkpoint's folder is expected, '.*' is not there. Check the path."),
        (open_checkpoint, "file", "A checkpoint's folder is expected, '.*' is a file"),
        (open_checkpoint, "dataset", "is a dataset, a checkpoint is expected here"),
        (open_dataset, "nothing", "There is no data file"),
        (open_dataset, "file", "is empty. One JSON object per line is expected"),
        (open_dataset, "checkpoint", "is a checkpoint, a dataset is expected here"),
        (open_dataset, "folder", "is no dataset: it has no part-"),
        (open_checkpoint, "stage", "holds the versions of a stage. Give one of them: v001-1f3a9c2e."),
        (open_dataset, "damaged", r"manifest\.json' is damaged"),
        (open_dataset, "lost part", r"part-00001\.jsonl' is missing or was changed"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(
    store: Store, tmp_path: Path, opener: Any, make: str, message: str
) -> None:
    """Each mistake with a path has its own message."""
    path = tmp_path / "given"
    if make == "file":
        path.write_text("")
    elif make == "folder":
        path.mkdir()
    elif make in ("checkpoint", "stage"):
        path = publish(store).path
        path = path.parent if make == "stage" else path
    elif make != "nothing":
        jsonl.write_shards(store.run_dir / "work", [{"a": 1}, {"a": 2}], rows_per_shard=1)
        path = store.publish("data", store.run_dir / "work", manifest("data", "dataset")).path
        if make == "damaged":
            (path / "manifest.json").write_text("{")
        elif make == "lost part":
            (path / "part-00001.jsonl").unlink()
    with pytest.raises(UsageError, match=message):
        opener(path)


# --- Verifying


def test_shallow_verify_reads_no_bytes_and_deep_reads_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Publishing noted the stats, so a shallow check of an untouched artifact hashes nothing."""
    artifact = publish(store)
    read: list[str] = []
    hashed = module.check_files.__globals__["sha256_file"]
    monkeypatch.setitem(
        module.check_files.__globals__, "sha256_file", lambda path: (read.append(path.name), hashed(path))[1]
    )
    assert verify(artifact, deep=False) == []
    assert read == []
    assert verify(artifact, deep=True) == []
    assert read == ["config.json", "model.safetensors", "tokenizer.json"]


def test_verify_names_what_is_missing_changed_and_added(store: Store) -> None:
    """Missing files, other bytes of the same size, another size are found at once; added ones when deep."""
    artifact = publish(store)
    (artifact.path / "config.json").unlink()
    (artifact.path / "tokenizer.json").write_text('{"version": "9.9"}')
    (artifact.path / "model.safetensors").write_text("")
    (artifact.path / "adapter.json").write_text("")
    shallow = verify(artifact, deep=False)
    assert [problem.split("'")[0] + Path(problem.split("'")[1]).name for problem in shallow] == [
        "file missing: config.json",
        "file changed: model.safetensors",
        "file changed: tokenizer.json",
    ]
    assert verify(artifact, deep=True) == [*shallow, f"file added: '{artifact.path / 'adapter.json'}'"]


def test_only_deep_finds_bytes_that_changed_behind_the_same_stats(store: Store) -> None:
    """What a failing disk does: size, time and inode stay, a bit does not."""
    artifact = publish(store)
    path = artifact.path / "tokenizer.json"
    stat = path.stat()
    path.write_text('{"version": "9.9"}')
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert verify(artifact, deep=False) == []
    assert verify(artifact, deep=True) == [f"file changed: '{path}' has other bytes than were published"]


def test_a_copied_run_is_read_once_and_then_trusted(store: Store, tmp_path: Path) -> None:
    """On another disk inodes differ: that is no damage, and the new ones are noted beside the artifact."""
    publish(store)
    shutil.copytree(store.run_dir, tmp_path / "copy")
    artifact = Store(tmp_path / "copy").latest("sft")
    assert artifact is not None
    before = snapshot(artifact.path)
    record = artifact.path.with_name(".v001-1f3a9c2e.stat.json")
    noted = record.read_bytes()
    assert verify(artifact, deep=False) == []
    assert record.read_bytes() != noted
    assert snapshot(artifact.path) == before


def test_verify_of_a_checkpoint_from_outside_looks_for_its_pieces(tmp_path: Path) -> None:
    """There is no manifest to compare with."""
    artifact = open_checkpoint(checkpoint(tmp_path / "m"))
    assert verify(artifact, deep=True) == []
    (tmp_path / "m" / "tokenizer.json").unlink()
    assert len(verify(artifact, deep=True)) == 1


# --- Lineage


def chain(store: Store, tmp_path: Path) -> tuple[Artifact, Artifact, Artifact]:
    """Outside model -> base -> zero; and r1 from both base and zero."""
    outside = open_checkpoint(checkpoint(tmp_path / "hub-model"))
    base = publish(store, "base", "aaaaaaaa", parents=(outside.as_parent("model", store.run_dir),))
    zero = publish(store, "zero", "bbbbbbbb", parents=(base.as_parent("model", store.run_dir),))
    both = (base.as_parent("model", store.run_dir), zero.as_parent("data", store.run_dir))
    return base, zero, publish(store, "r1", "cccccccc", parents=both)


def test_lineage_goes_back_to_the_roots(store: Store, tmp_path: Path) -> None:
    """Every parent with its role, whole and by manifests alone; also from a moved run."""
    _, _, r1 = chain(store, tmp_path)
    assert load(r1).parents[0].path == "artifacts/base/v001-aaaaaaaa"

    def tree(node: module.Lineage) -> Any:
        return (node.role, node.name, node.note, [tree(parent) for parent in node.parents])

    root = ("model", "hub-model", "from outside", [])
    base = ("model", "base v001-aaaaaaaa", "", [root])
    expected = ("", "r1 v001-cccccccc", "", [base, ("data", "zero v001-bbbbbbbb", "", [base])])
    assert tree(lineage(r1)) == expected
    store.run_dir.rename(tmp_path / "moved")
    moved = Store(tmp_path / "moved").latest("r1")
    assert moved is not None
    assert tree(lineage(moved)) == expected
    plain = lineage(moved).as_dict()
    assert plain["parents"][1]["parents"][0]["cost"]["seconds"] == 1.5
    assert jsonl.loads(jsonl.dumps(plain)) == plain


def test_lineage_says_what_is_gone_and_what_was_replaced(store: Store, tmp_path: Path) -> None:
    """A removed parent keeps its recorded name; what now lies in its place is not passed off as it."""
    base, zero, r1 = chain(store, tmp_path)
    shutil.rmtree(zero.path)
    publish(store, "other", "dddddddd").path.replace(zero.path)
    shutil.rmtree(base.path)
    notes = [(node.name, node.note, node.manifest, node.parents) for node in lineage(r1).parents]
    assert notes == [
        ("base v001-aaaaaaaa", "no longer there", None, ()),
        ("zero v001-bbbbbbbb", "replaced by other data", None, ()),
    ]


def test_lineage_of_a_circle_ends(store: Store) -> None:
    """Only a manifest changed by hand can name its own child."""
    fingerprint = "aaaaaaaa".ljust(64, "0")
    own = Parent(role="model", name="me", fingerprint=fingerprint, path="artifacts/base/v001-aaaaaaaa")
    artifact = publish(store, "base", "aaaaaaaa", parents=(own,))
    assert [node.note for node in lineage(artifact).parents] == ["replaced by other data"]


def load(artifact: Artifact) -> module.Manifest:
    """The manifest as it is on the disk."""
    found = load_manifest(artifact.path)
    assert found is not None
    return found


def checkpoint_files(folder: Path) -> set[str]:
    """Names of the files in a folder, hidden ones too."""
    return {path.name for path in folder.iterdir()}
