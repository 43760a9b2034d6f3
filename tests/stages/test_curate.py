"""The curate stage: what is published, that it is usable, and what stops and changed files do to it."""

import errno
import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from r1pipe import jsonl, pipeline
from r1pipe.artifact import Store, open_dataset
from r1pipe.curate import curation
from r1pipe.curate.reading import Reader
from r1pipe.curate.shards import Writer
from r1pipe.errors import Conflict, Interrupted, RunFailed, UsageError
from r1pipe.recipe import Recipe, StageSpec
from r1pipe.stage import Outcome
from stages import curate
from tests.curating import kept, ledger, row, run, write
from tests.folders import manifest
from tests.test_jsonl import file_size_limit
from tests.tiny_model import Ear, workplace

STEPS = ["truncated", "correct", "exact"]


def rows(count: int) -> list[dict[str, Any]]:
    """Every fifth is wrong, every seventh a copy of the one before under its own id."""
    made: list[dict[str, Any]] = []
    for number in range(count):
        whole = {**made[-1], "id": f"copy{number}"} if number % 7 == 6 else row(number)
        made.append({**whole, "verdict": "fail", "reason": "wrong value"} if number % 5 == 0 else whole)
    return made


def published(outcome: Outcome) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in outcome.path.iterdir()}


def publish(outcome: Outcome, folder: Path) -> Path:
    """As a stage's worker does."""
    made = manifest("curated", kind="dataset").model_copy(update={"metrics": outcome.metrics})
    return Store(folder).publish("curated", outcome.path, made, outcome.card).path


def test_what_is_published(tmp_path: Path) -> None:
    """The rows that are kept as they were, byte by byte and in order; the ledger says where each other one
    was and why it left; the counts of the steps add up to the input."""
    data = rows(40)
    outcome, ear = run(tmp_path / "run", write(tmp_path / "a.jsonl", data), steps=STEPS, shard_rows=10)
    lines = b"".join(path.read_bytes() for path in sorted(outcome.path.glob("part-*.jsonl")))
    right = [each for each in data if each["verdict"] == "pass"]
    kept_rows = [
        each for number, each in enumerate(right) if each["question"] != right[number - 1]["question"]
    ]
    assert lines == b"".join(jsonl.dumps(each) + b"\n" for each in kept_rows)
    parts = [f"part-0000{number}.jsonl" for number in range(3)]
    assert sorted(published(outcome)) == ["ledger.jsonl", *parts]
    left = ledger(outcome)
    assert [each["line"] for each in left] == [n + 1 for n, each in enumerate(data) if each not in kept_rows]
    assert left[0] == {
        "id": "p0#0",
        "source": "a.jsonl",
        "line": 1,
        "step": 2,
        "name": "correct",
        "reason": "wrong: wrong value",
        "evidence": None,
    }
    (copy,) = [each for each in left if each["line"] == 14]
    assert (copy["step"], copy["name"], copy["reason"]) == (3, "exact:trace", "duplicate trace")
    assert copy["evidence"] == {"kept_source": "a.jsonl", "kept_line": 13}
    steps = outcome.metrics["steps"]
    assert [(step["name"], step["seen"], step["kept"]) for step in steps] == [
        ("reading", 40, 40),
        ("truncated", 40, 40),
        ("correct", 40, len(right)),
        ("exact:trace", len(right), len(kept_rows)),
    ]
    assert outcome.metrics["input"] == 40 == outcome.metrics["kept"] + outcome.metrics["rejected"]
    assert "correct: 9 of 40 rows left (wrong: wrong value 9)." in ear.said


def test_rows_that_are_none_are_set_aside(tmp_path: Path) -> None:
    """Torn, of another encoding, of the wrong shape, an id twice: each with its line, reason and text."""
    bad = [b'{"id": "x", "prompt": \n', b"\xff\xfe\n", b"[1]\n", b'{"id": "y", "prompt": "a"}\n', b"\n"]
    lines: list[dict[str, Any] | bytes] = [
        b"\xef\xbb\xbf",
        row(1),
        *bad,
        row(1, completion="other"),
        row(2),
        b'{"id"',
    ]
    outcome, ear = run(tmp_path / "run", write(tmp_path / "a.jsonl", lines), steps=[])
    assert kept(outcome) == [row(1), row(2)]
    aside = list(jsonl.iter_rows(outcome.path / "set-aside.jsonl"))
    assert [(each["line"], each["reason"]) for each in aside] == [
        (2, "not JSON"),
        (3, "not UTF-8"),
        (4, "a JSON list, not an object"),
        (5, "no text in 'prompt' and 'completion'"),
        (7, "duplicate id"),
        (9, "not JSON"),
    ]
    assert aside[0]["text"] == '{"id": "x", "prompt": '
    assert aside[4]["text"] == jsonl.dumps(row(1, completion="other")).decode()
    assert "the file ends in the middle of a line" in aside[5]["evidence"]
    assert outcome.metrics["set_aside"] == 6 == len(ledger(outcome))
    assert "reading: 6 of 8 rows left" in ear.said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("".join(f"{jsonl.dumps(row(n)).decode()}\n" for n in range(3)).encode("utf-16"), "give UTF-8"),
        (b"\n \n", "there is none in what was given"),
    ],
    ids=["utf-16", "blank lines"],
)
def test_a_file_without_a_readable_line(tmp_path: Path, text: bytes, said: str) -> None:
    """The message says what is expected, and not to loosen steps."""
    (tmp_path / "a.jsonl").write_bytes(text)
    with pytest.raises(RunFailed, match=said) as error:
        run(tmp_path / "run", tmp_path / "a.jsonl", steps=STEPS)
    assert "Loosen" not in str(error.value)


def test_a_file_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    """Under whatever name: each of its rows would be there twice, under two ids."""
    file = write(tmp_path / "a.jsonl", rows(5))
    (tmp_path / "b.jsonl").symlink_to(file)
    for other in (file, tmp_path / "b.jsonl"):
        with pytest.raises(UsageError, match="given twice"):
            run(tmp_path / "run", file, other, steps=STEPS)
    with pytest.raises(UsageError, match="given twice"):
        run(tmp_path / "run", file, steps=[*STEPS, {"name": "mix", "data": str(file)}])


@pytest.mark.parametrize(
    ("name", "whole"), [("a.jsonl.zst", False), ("a.jsonl.gz", False), ("a.jsonl.gz", True)]
)
def test_a_damaged_compressed_file(tmp_path: Path, name: str, whole: bool) -> None:
    """Cut in the middle, or not compressed at all: it is the file that cannot be read, nothing else."""
    packed = tmp_path / name
    jsonl.write_rows(tmp_path / "a.jsonl", rows(200))
    if name.endswith(".zst"):
        jsonl.write_rows(packed, rows(200))
    else:
        text = (tmp_path / "a.jsonl").read_bytes()
        packed.write_bytes(text if whole else gzip.compress(text))
    packed.write_bytes(packed.read_bytes()[: None if whole else packed.stat().st_size // 2])
    with pytest.raises(UsageError, match=rf"{name}' cannot be read: .*copy it here again"):
        run(tmp_path / "run", packed, steps=STEPS)


def test_load_dataset_opens_it(tmp_path: Path) -> None:
    """Both splits, with the types of all rows, and neither the ledger nor what was set aside."""
    datasets = pytest.importorskip("datasets")
    data = [*rows(40), row(90, gold={"target": 3}), row(91, extra=1.5)]
    file = write(tmp_path / "a.jsonl", [*data, b"torn"])
    outcome, _ = run(tmp_path / "run", file, steps=STEPS, validation=0.2, shard_rows=7)
    folder = publish(outcome, tmp_path / "store")
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert {split: len(loaded[split]) for split in loaded} == {
        "train": outcome.metrics["train"],
        "validation": outcome.metrics["validation"],
    }
    assert [each["id"] for each in loaded["train"]] == [each["id"] for each in kept(outcome)]
    assert outcome.metrics["validation"] > 3
    train, validation = (
        {each["problem_id"] for each in kept(outcome, split)} for split in ("part", "validation")
    )
    assert not train & validation
    card = (folder / "README.md").read_text()
    assert "| 2 correct | 42 | 9 | 0 | 33 | wrong: wrong value 9 |" in card
    assert "| a.jsonl | 43 |" in card
    assert "Beside the rows, not loaded with them: ledger.jsonl, set-aside.jsonl." in card


def test_compressed(tmp_path: Path) -> None:
    """`.zst` in and out: the same rows; what reads datasets reads them too."""
    datasets = pytest.importorskip("datasets")
    jsonl.write_rows(tmp_path / "a.jsonl.zst", rows(30))
    plain, _ = run(tmp_path / "plain", write(tmp_path / "a.jsonl", rows(30)), steps=STEPS)
    packed, _ = run(tmp_path / "packed", tmp_path / "a.jsonl.zst", steps=STEPS, compress=True)
    assert sorted(published(packed)) == ["ledger.jsonl.zst", "part-00000.jsonl.zst"]
    assert kept(packed) == kept(plain)
    assert [each["line"] for each in ledger(packed)] == [each["line"] for each in ledger(plain)]
    folder = publish(packed, tmp_path / "store")
    assert open_dataset(folder).rows() == kept(plain)
    loaded = datasets.load_dataset(str(folder), cache_dir=str(tmp_path / "cache"), split="train")
    assert [each["id"] for each in loaded] == [each["id"] for each in kept(plain)]


def test_foreign_rows(tmp_path: Path) -> None:
    """Columns of others, verdicts of our own: what is published has the usual names, an id, the verdict."""
    problems = [
        {"q": "What is 2 + 2?", "solution": "Two and two make four.\n#### 4", "level": "easy"},
        {"q": "What is 3 + 2?", "solution": "#### 6", "level": "easy"},
        {"q": "What is 1 + 2?", "solution": "#### 3"},
    ]
    golds = ["4", "5", "proof"]
    data = [{**problem, "gold": gold} for problem, gold in zip(problems, golds, strict=True)]
    file = write(tmp_path / "foreign.jsonl", data)
    columns = {"prompt": "q", "completion": "solution", "domain": "level"}
    outcome, _ = run(tmp_path / "run", file, columns=columns, steps=["verify", "correct"])
    assert kept(outcome) == [
        {
            "id": "foreign.jsonl@0",
            "prompt": "What is 2 + 2?",
            "completion": " Two and two make four.\n#### 4",
            "gold": "4",
            "task": "easy",
            "verdict": "pass",
            "reason": "",
            "extracted": "4",
        }
    ]
    assert [(each["line"], each["name"], each["reason"]) for each in ledger(outcome)] == [
        (2, "correct", "wrong: wrong answer"),
        (3, "verify", "the gold is not an answer"),
    ]
    assert (outcome.metrics["rejected"], outcome.metrics["set_aside"]) == (1, 1)


def test_rows_that_name_no_problem(tmp_path: Path) -> None:
    """With the same question they are samples of one problem, so that `exact` of questions takes none of
    them, says so, and `cap` does; a problem with a name that asks the same is another one."""
    data = [{"prompt": "1 + 1?", "completion": str(number)} for number in range(3)]
    file, of_questions = write(tmp_path / "a.jsonl", data), {"name": "exact", "of": "question"}
    outcome, ear = run(tmp_path / "unnamed", file, steps=[of_questions])
    assert len(kept(outcome)) == 3
    assert "No row names its problem" in ear.said and "`cap`" in ear.said
    capped, ear = run(tmp_path / "capped", file, steps=[{"name": "cap", "count": 1, "prefer": "first"}])
    assert [each["completion"] for each in kept(capped)] == ["0"]
    named = write(tmp_path / "b.jsonl", [{**data[0], "problem_id": f"p{number}"} for number in (7, 7, 8)])
    both, ear = run(tmp_path / "named", named, file, steps=[of_questions])
    assert [each["problem_id"] for each in kept(both)] == ["p7", "p7"]
    assert "names its problem" not in ear.said


def test_a_column_that_is_mapped_is_moved_in_rows_that_need_nothing_else(tmp_path: Path) -> None:
    """A gold of another name is published as `gold`; conversations are published once."""
    made = {**row(1), "info": {"answer": "3"}}
    del made["gold"]
    outcome, _ = run(
        tmp_path / "a", write(tmp_path / "a.jsonl", [made]), columns={"gold": "info.answer"}, steps=[]
    )
    assert kept(outcome)[0]["gold"] == "3"
    talk = [{"from": "human", "value": "1 + 1"}, {"from": "gpt", "value": "2"}]
    file = write(tmp_path / "b.jsonl", [{"talk": talk, "level": "easy"}])
    outcome, _ = run(tmp_path / "b", file, columns={"messages": "talk", "domain": "level"}, steps=[])
    (conversation,) = kept(outcome)
    assert set(conversation) == {"id", "messages", "task"} and conversation["task"] == "easy"


def test_general_data_is_mixed_in(tmp_path: Path) -> None:
    """Steps before do not see it, steps after do; it is counted where it comes in, its licence is told."""
    general = write(
        tmp_path / "general.jsonl", [{"prompt": f"q{n}", "completion": f"a{n % 3}"} for n in range(30)]
    )
    mix = {"name": "mix", "data": str(general), "share": 0.5}
    file = write(tmp_path / "a.jsonl", rows(20))
    licences = {str(general): "cc-by-4.0", str(file): "mit"}
    steps = [*STEPS, mix, {"name": "length", "at_most": 1000}]
    outcome, _ = run(tmp_path / "run", file, steps=steps, licences=licences)
    reasoning = [each for each in kept(outcome) if "verdict" in each]
    assert len(kept(outcome)) == 2 * len(reasoning) == 2 * outcome.metrics["steps"][3]["kept"]
    told = outcome.metrics["steps"][4]
    assert (told["name"], told["joined"], told["seen"]) == ("mix", 30, len(reasoning) + 30)
    assert told["rejected"] == {"beyond what is mixed in": 30 - len(reasoning)}
    assert outcome.card is not None
    assert outcome.card.licences == ["cc-by-4.0", "mit"]
    assert f"| general.jsonl | 30 | {len(reasoning)} | cc-by-4.0 |" in outcome.card.text
    alone, _ = run(tmp_path / "alone", file, steps=[*STEPS[:2], {**mix, "share": None, "rows": 4}, "correct"])
    assert alone.metrics["steps"][4]["rejected"] == {"no verdict": 4}


def test_rows_of_two_inputs_may_share_ids(tmp_path: Path) -> None:
    """They are different rows: none is lost, and the second is renamed."""
    (tmp_path / "b").mkdir()
    one = write(tmp_path / "rows.jsonl", [row(1)])
    two = write(tmp_path / "b" / "rows.jsonl", [row(1, completion=f"{row(2)['completion']}")])
    outcome, _ = run(tmp_path / "run", one, two, steps=[])
    names = [each["id"] for each in kept(outcome)]
    assert names == ["p1#0", "p1#0@b/rows.jsonl"]
    assert kept(outcome)[1] == {**row(1, completion=row(2)["completion"]), "id": names[1]}


def test_problems_of_two_inputs_may_share_names(tmp_path: Path) -> None:
    """`cap` and pass rates keep them apart, where they ask different things."""
    one = write(tmp_path / "a.jsonl", [row(number, problem_id=str(number)) for number in range(4)])
    others = [row(number + 4, problem_id=str(number), verdict="fail", reason="no") for number in range(4)]
    two = write(tmp_path / "b.jsonl", others)
    again = write(tmp_path / "c.jsonl", [row(0, id="again", problem_id="0")])
    outcome, _ = run(tmp_path / "run", one, two, again, steps=[{"name": "cap", "count": 1}])
    assert [each["id"] for each in kept(outcome)] == [f"p{number}#0" for number in range(8)]
    outcome, _ = run(tmp_path / "hard", one, two, again, steps=[{"name": "pass-rate", "at_least": 0.5}])
    assert outcome.metrics["kept"] == 5


# --- Stops, changes, full disks


class _Stopping:
    """Asks the stage to stop after so many calls."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, owner: type, name: str) -> None:
        self.calls = 0
        self.stop_at: int | None = None
        self.stop: Callable[[], None] = lambda: None
        real = getattr(owner, name)

        def counted(worker: Any, piece: Any) -> Any:
            self.calls += 1
            if self.calls == self.stop_at:
                self.stop()
            return real(worker, piece)

        monkeypatch.setattr(owner, name, counted)


@pytest.mark.parametrize(("owner", "name"), [(Reader, "read"), (Writer, "write")])
def test_a_stop_costs_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: type, name: str
) -> None:
    """Whichever chunk or shard a stop falls on, the rest is done next time, and the result is the same."""
    monkeypatch.setattr(curation, "CHUNK", 4000)
    file = write(tmp_path / "a.jsonl", rows(60))
    options = {"steps": [*STEPS, "near"], "shard_rows": 8, "validation": 0.1}
    whole, _ = run(tmp_path / "whole", file, **options)
    pieces = _Stopping(monkeypatch, owner, name)
    run(tmp_path / "counted", file, **options)
    total = pieces.calls
    assert total > 4
    for stop_at in (1, total // 2, total - 1):
        pieces.calls, pieces.stop_at = 0, stop_at
        work, _ = workplace(tmp_path / f"stopped{stop_at}")
        pieces.stop = work.stop.set
        with pytest.raises(Interrupted):
            _run_in(work, file, **options)
        assert pieces.calls == stop_at
        pieces.stop_at = None
        before = _inodes(tmp_path / f"stopped{stop_at}")
        again, _ = run(tmp_path / f"stopped{stop_at}", file, **options)
        assert len(before) >= stop_at
        assert before.items() <= _inodes(tmp_path / f"stopped{stop_at}").items(), "something was made twice"
        assert published(again) == published(whole)
        assert (again.metrics, again.card) == (whole.metrics, whole.card)


def _inodes(folder: Path) -> dict[str, int]:
    """The files that hold finished work."""
    made = [*folder.glob("read/chunk-*"), *folder.glob("published/*-0*")]
    return {path.name: path.stat().st_ino for path in made}


def _run_in(work: Any, file: Path, **config: Any) -> Outcome:
    from r1pipe.stage import Inputs

    made = curate.Config.model_validate({"data": [str(file)], "workers": 1, **config})
    return curate.run(made, Inputs({"data": [(str(file), open_dataset(file))]}), work)


def test_a_stop_is_heard_while_texts_are_compared() -> None:
    """Which may take long, where all rows are made of one template: before the next pairs are read."""

    def stop() -> None:
        raise Interrupted("stopped")

    compare = curation.Comparison(None, [], stop)  # type: ignore[arg-type]
    with pytest.raises(Interrupted):
        compare("trace", np.array([0]), np.array([1]))


def test_a_changed_file_is_read_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was made of its old state is dropped, and that is said."""
    file = write(tmp_path / "a.jsonl", rows(30))
    monkeypatch.setattr(curation.ledger, "write", _full)
    with pytest.raises(RunFailed, match="disk is full"):
        run(tmp_path / "run", file, steps=STEPS)
    monkeypatch.undo()
    write(file, rows(50))
    outcome, ear = run(tmp_path / "run", file, steps=STEPS)
    assert "Changed since they were read, and read anew: a.jsonl." in ear.said
    fresh, quiet = run(tmp_path / "fresh", file, steps=STEPS)
    assert published(outcome) == published(fresh)
    assert "Changed" not in quiet.said


def _full(*_: Any) -> int:
    with jsonl.writing("ledger.jsonl"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_file_that_changes_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is published of two states of a file."""
    file = write(tmp_path / "a.jsonl", rows(30))
    real = curation.ledger.write

    def changing(*given: Any) -> int:
        write(file, rows(31))
        return real(*given)

    monkeypatch.setattr(curation.ledger, "write", changing)
    with pytest.raises(RunFailed, match=r"a\.jsonl' was changed while it was curated"):
        run(tmp_path / "run", file, steps=STEPS)


@pytest.mark.parametrize("change", ["another", "gone", "one more"])
def test_a_benchmark_that_changes_meanwhile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Nothing is published of which a part was compared with one state of it and the rest with another."""
    file = write(tmp_path / "a.jsonl", rows(30))
    (tmp_path / "test").mkdir()
    for number in range(2):
        write(
            tmp_path / "test" / f"part-0000{number}.jsonl", [{"problem": f"Which river is number {number}?"}]
        )
    real = curation.ledger.write

    def changing(*given: Any) -> int:
        if change == "gone":
            (tmp_path / "test" / "part-00001.jsonl").unlink()
        else:
            number = 1 if change == "another" else 2
            write(tmp_path / "test" / f"part-0000{number}.jsonl", [{"problem": "What is its name?"}])
        return real(*given)

    monkeypatch.setattr(curation.ledger, "write", changing)
    steps = [*STEPS, {"name": "decontaminate", "benchmarks": [str(tmp_path / "test")]}]
    with pytest.raises(RunFailed, match=r"part-0000[12]\.jsonl' was changed while it was curated"):
        run(tmp_path / "run", file, steps=steps)


def test_an_input_that_is_gone_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told as any other change, also where nothing is kept."""
    file = write(tmp_path / "a.jsonl", rows(30))
    real = curation.decide

    def losing(*given: Any) -> Any:
        found = real(*given)
        file.unlink()
        return found

    monkeypatch.setattr(curation, "decide", losing)
    with pytest.raises(RunFailed, match=r"a\.jsonl' was changed while it was curated"):
        run(tmp_path / "run", file, steps=[{"name": "length", "at_least": 10**6}])


@pytest.mark.parametrize("when", ["reading", "writing"])
def test_a_full_disk_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    """With the way out; the same call goes on once there is room."""
    file = write(tmp_path / "a.jsonl", rows(30))
    broken = "part-00001" if when == "writing" else "chunk-00000"
    real, full = os.fsync, True

    def fsync(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if full and broken in name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunFailed, match=r"The disk is full.*run the same command again"):
        run(tmp_path / "run", file, steps=STEPS, shard_rows=10)
    full = False
    outcome, _ = run(tmp_path / "run", file, steps=STEPS, shard_rows=10)
    fresh, _ = run(tmp_path / "fresh", file, steps=STEPS, shard_rows=10)
    assert published(outcome) == published(fresh)


@pytest.mark.parametrize("chunk", [4_000, 1_000_000], ids=["all sketches", "those of a chunk"])
def test_what_the_system_says_of_a_full_disk_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """Also where numpy could write by itself, which says how many items it has written and not why."""
    monkeypatch.setattr(curation, "CHUNK", chunk)
    file = write(tmp_path / "a.jsonl", rows(40))
    with file_size_limit(8_000), pytest.raises(RunFailed, match=os.strerror(errno.EFBIG)):
        run(tmp_path / "run", file, steps=[*STEPS, "near"])
    assert run(tmp_path / "run", file, steps=[*STEPS, "near"])[0].metrics["kept"]


def test_nothing_kept_says_what_took_most(tmp_path: Path) -> None:
    """The counts of the steps, and the way out."""
    file = write(tmp_path / "a.jsonl", [row(number, verdict=None) for number in range(3)])
    with pytest.raises(RunFailed, match=r"correct: 3 of 3 \(no verdict 3\)\nLoosen the step"):
        run(tmp_path / "run", file, steps=STEPS)


# --- The config


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"steps": ["near", "exat"]}, "there is no step 'exat'; did you mean 'exact'?"),
        ({"steps": [{"of": "trace"}]}, "a step is its name, or a mapping with a `name`"),
        (
            {"steps": ["correct", "verify"]},
            "verify comes after correct, which looks at verdicts; put verify first",
        ),
        ({"steps": ["verify", "verify"]}, "verify stands there twice"),
        ({"steps": [{"name": "cap", "prefer": "longest"}]}, "shortest"),
        (
            {"steps": [{"name": "balance", "rows": 5, "tokens": 5}]},
            "tokens is 5 and rows is 5; set one of them",
        ),
        ({"steps": [{"name": "balance", "by": ["length"], "shares": {"a": 1}}]}, "add domain to by"),
        ({"steps": [{"name": "mix", "data": "b", "rows": 5, "share": 0.5}]}, "set one of them"),
        ({"steps": [{"name": "pass-rate", "at_least": 0.9, "at_most": 0.1}]}, "nothing would be kept"),
        ({"licences": {"b": "mit"}}, "licences names 'b', which is no input; those are a"),
        ({"data": []}, "at least 1 item"),
    ],
)
def test_what_is_refused(config: dict[str, Any], said: str) -> None:
    """Before anything is read, with the way out."""
    with pytest.raises(ValidationError) as error:
        curate.Config.model_validate({"data": "a", **config})
    assert said in str(error.value)


# --- As a stage


def alone(data: Path, out: Path, events: Ear | None = None, **config: Any) -> Any:
    """As `r1pipe curate DATA --out OUT` does."""
    made = curate.Config.model_validate({"data": [str(data)], "workers": 1, **config})
    return pipeline.run_alone("curate", made, out, sink=events)


def test_on_the_command_line(tmp_path: Path) -> None:
    """Done once it is up to date; other options are another result."""
    file = write(tmp_path / "a.jsonl", rows(20))
    made = alone(file, tmp_path / "out", steps=STEPS)
    assert made.manifest.metrics["input"] == 20
    assert "## Examples" in (tmp_path / "out" / "README.md").read_text()
    again = Ear()
    alone(file, tmp_path / "out", again, steps=STEPS)
    assert [kind for kind, _ in again.events] == ["stage_reused"]
    with pytest.raises(Conflict, match="holds something else"):
        alone(file, tmp_path / "out", steps=STEPS[:1])


def test_a_run_has_one_writer(tmp_path: Path) -> None:
    """A second job on the same output is refused with who holds it."""
    from r1pipe.run import RunFolder

    file = write(tmp_path / "a.jsonl", rows(20))
    with RunFolder(tmp_path / "out.run").writing(), pytest.raises(Conflict, match="is held by process"):
        alone(file, tmp_path / "out", steps=STEPS)


def test_a_bad_benchmark_is_one_error(tmp_path: Path) -> None:
    """Also where several processes would read it."""
    file = write(tmp_path / "a.jsonl", rows(20))
    bench = write(tmp_path / "bench.jsonl", [{"words": "other"}])
    step = {"name": "decontaminate", "benchmarks": [str(bench)]}
    with pytest.raises(UsageError, match="none of the columns"):
        run(tmp_path / "run", file, steps=[step], workers=2)


def test_a_stage_of_a_recipe(tmp_path: Path) -> None:
    """It takes a stage's rows, and what fine-tunes takes its."""
    assert curate.Config.makes == "dataset"
    config = curate.Config.model_validate(
        {"data": ["traces"], "steps": [{"name": "mix", "data": ["general"]}]}
    )
    recipe = Recipe("r", 0, {"curated": StageSpec("curated", "curate", config)})
    assert [(each.role, each.value) for each in recipe.stages["curated"].inputs] == [
        ("data", "traces"),
        ("steps.0.data", "general"),
    ]


def test_what_it_makes_is_what_fine_tunes_read(tmp_path: Path) -> None:
    """Rows of our own and conversations of others become examples, none is set aside."""
    from r1pipe.train.examples import Examples
    from r1pipe.world.tokenizer import build_tokenizer

    talk = [{"from": "human", "value": "1 + 1"}, {"from": "gpt", "value": "2"}]
    others = write(tmp_path / "others.jsonl", [{"conversations": talk}])
    mix = {"name": "mix", "data": str(others), "columns": {"messages": "conversations"}}
    outcome, _ = run(tmp_path / "run", write(tmp_path / "a.jsonl", rows(20)), steps=[*STEPS, mix])
    examples = Examples()
    examples.read(outcome.path, build_tokenizer(64), context=1000)
    assert examples.set_aside == []
    assert len(examples.kept) == outcome.metrics["train"] == len(kept(outcome))


def test_the_one_command(tmp_path: Path) -> None:
    """`r1pipe curate IN… --out DIR` prints the table of the steps, and with --json their counts."""
    from typer.testing import CliRunner

    from r1pipe.cli import app

    one, two = (write(tmp_path / f"{name}.jsonl", rows(20)) for name in "ab")
    command = ["curate", str(one), str(two), "--steps", "[correct, exact]", "--out", str(tmp_path / "out")]
    made = CliRunner().invoke(app, command)
    assert made.exit_code == 0, made.output
    assert "step           rows in  rejected  set aside  kept" in made.output
    told = CliRunner().invoke(app, [*command, "--json"])
    steps = jsonl.loads(told.stdout)["metrics"]["steps"]
    assert [(step["seen"], step["kept"]) for step in steps] == [(40, 40), (40, 30), (30, 14)]
