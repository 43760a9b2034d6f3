"""Traces in other tools' forms, each opened by `datasets`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

from r1pipe import jsonl
from r1pipe.curate.exports import export
from r1pipe.errors import Conflict, UsageError
from tests.curate.test_traces import sampled, trace

RIGHT = "5 * 6 = 30 </think> <answer> 30 </answer>"
Load = Callable[[Path], list[dict[str, Any]]]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def loaded(file: Path) -> list[dict[str, Any]]:
        from datasets import load_dataset

        return list(load_dataset("json", data_files=str(file), cache_dir=str(tmp_path / "cache"))["train"])

    return loaded


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Two problems in two parts, of one of which two completions were rejected."""
    from r1pipe.verify.verdict import failed, undecided

    kept = [trace(sampled(text=RIGHT, sample=2)), trace(sampled(text=RIGHT, problem="q"))]
    rejected = [
        {**trace(sampled(failed("wrong"), text="6 </think> 6", sample=0)), "rejected": "wrong"},
        {**trace(sampled(undecided("cut"), text="5", truncated=True, sample=1)), "rejected": "cut"},
    ]
    folder = tmp_path / "traces"
    jsonl.write_shards(folder, [dict(row) for row in kept], rows_per_shard=1)
    jsonl.write_rows(folder / "rejects.jsonl", rejected)
    return folder


def test_prompt_and_completion_are_the_models(dataset: Path, tmp_path: Path, load: Load) -> None:
    """As they were given and drawn, for a loss on the completion alone."""
    assert export(dataset, "prompt-completion", tmp_path / "out.jsonl") == 2
    assert load(tmp_path / "out.jsonl") == [{"prompt": "5 * 6? <think>", "completion": RIGHT}] * 2


def test_messages(dataset: Path, tmp_path: Path, load: Load) -> None:
    """The question without its template, and the thinking with the tag that the prompt had opened."""
    export(dataset, "messages", tmp_path / "out.jsonl")
    turns = [
        {"role": "user", "content": "5 * 6?"},
        {"role": "assistant", "content": f"<think>\n{RIGHT}"},
    ]
    assert load(tmp_path / "out.jsonl") == [{"messages": turns}] * 2


def test_sharegpt(dataset: Path, tmp_path: Path, load: Load) -> None:
    """The same under other names."""
    export(dataset, "sharegpt", tmp_path / "out.jsonl")
    turns = [{"from": "human", "value": "5 * 6?"}, {"from": "gpt", "value": f"<think>\n{RIGHT}"}]
    assert load(tmp_path / "out.jsonl") == [{"conversations": turns}] * 2


def test_openr1_has_a_row_per_problem(dataset: Path, tmp_path: Path, load: Load) -> None:
    """With the rejects it holds all that was made, by sample, whatever stands in which file."""
    assert export(dataset, "openr1", tmp_path / "out.jsonl", rejects=True) == 2
    one, two = load(tmp_path / "out.jsonl")
    assert one == {
        "uuid": "p",
        "problem": "5 * 6?",
        "answer": "30",
        "source": "countdown",
        "generations": ["<think>\n6 </think> 6", "<think>\n5", f"<think>\n{RIGHT}"],
        "finish_reasons": ["stop", "length", "stop"],
        "is_reasoning_complete": [True, False, True],
        "correctness": [False, None, True],
        "correctness_count": 1,
        "messages": [
            {"role": "user", "content": "5 * 6?"},
            {"role": "assistant", "content": f"<think>\n{RIGHT}"},
        ],
    }
    assert (two["uuid"], two["correctness"]) == ("q", [True])
    export(dataset, "openr1", tmp_path / "kept.jsonl")
    assert [len(row["generations"]) for row in load(tmp_path / "kept.jsonl")] == [1, 1]


def test_a_gold_that_is_no_text_is_json(tmp_path: Path) -> None:
    """And a completion whose prompt opened no thinking stays as it is."""
    row = {**trace(), "gold": {"target": 30}, "opened": False}
    jsonl.write_rows(tmp_path / "rows.jsonl", [row])
    export(tmp_path / "rows.jsonl", "openr1", tmp_path / "out.jsonl")
    (made,) = jsonl.iter_rows(tmp_path / "out.jsonl")
    assert json.loads(made["answer"]) == {"target": 30}
    assert made["generations"] == [row["completion"]]


def test_rows_of_another_shape_are_refused_by_place(tmp_path: Path) -> None:
    """The message names the line, what is missing and what is there; nothing is left behind."""
    (tmp_path / "rows.jsonl").write_text(
        '\n{"prompt": "a", "completion": "b"}\n{"prompt": "a", "text": "b"}\n'
    )
    with pytest.raises(UsageError, match=r"rows.jsonl:3: no 'completion', .* the row has: prompt, text"):
        export(tmp_path / "rows.jsonl", "prompt-completion", tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match=r"rows.jsonl:2: no 'gold', which openr1 needs"):
        export(tmp_path / "rows.jsonl", "openr1", tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]


@pytest.mark.parametrize(
    ("found", "form", "said"),
    [
        ({"messages": "hello"}, "messages", "'messages' is not a list of"),
        ({"messages": [{"role": "user", "content": "a"}] * 2}, "sharegpt", "does not end in an assistant's"),
        ({"question": None, "prompt": 3}, "openr1", "no text in 'prompt'"),
        ({"completion": None}, "prompt-completion", "no text in 'completion'"),
    ],
)
def test_words_of_another_type_are_refused(
    tmp_path: Path, found: dict[str, Any], form: Any, said: str
) -> None:
    """By their place; no `null` becomes a text, and no text a list of letters."""
    jsonl.write_rows(tmp_path / "rows.jsonl", [{**trace(), **found}])
    with pytest.raises(UsageError, match=rf"rows.jsonl:1: .*{said}"):
        export(tmp_path / "rows.jsonl", form, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_conversations_of_others(tmp_path: Path) -> None:
    """Turns by either names; a sample or a verdict that is none is passed over."""
    talk = [{"from": "human", "value": "1 + 1?"}, {"from": "gpt", "value": "2"}]
    jsonl.write_rows(tmp_path / "rows.jsonl", [{**trace(), "messages": talk, "sample": "a", "verdict": []}])
    for form, read in (
        ("messages", lambda row: row["messages"][1]),
        ("sharegpt", lambda row: row["conversations"] == talk),
        ("openr1", lambda row: (row["problem"], row["generations"], row["correctness"])),
    ):
        export(tmp_path / "rows.jsonl", form, tmp_path / f"{form}.jsonl")  # type: ignore[arg-type]
        (made,) = jsonl.iter_rows(tmp_path / f"{form}.jsonl")
        expected = {"messages": {"role": "assistant", "content": "2"}, "sharegpt": True}
        assert read(made) == expected.get(form, ("5 * 6?", ["2"], [None]))


def test_no_rows_are_refused(tmp_path: Path) -> None:
    """And no empty file is left."""
    (tmp_path / "rows.jsonl").write_text("\n")
    for form in ("messages", "openr1"):
        with pytest.raises(UsageError, match="holds no rows"):
            export(tmp_path / "rows.jsonl", form, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_torn_lines_and_missing_files_are_told(dataset: Path, tmp_path: Path) -> None:
    """Each with the way out."""
    (dataset / "rejects.jsonl").unlink()
    with pytest.raises(UsageError, match="leave out --with-rejects"):
        export(dataset, "messages", tmp_path / "out.jsonl", rejects=True)
    part = dataset / "part-00001.jsonl"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(UsageError, match=r"part-00001.jsonl:1: not JSON .* Correct or remove this line"):
        export(dataset, "openr1", tmp_path / "out.jsonl")
    with pytest.raises(UsageError, match="has to be unpacked"):
        export(_gzipped(tmp_path), "openr1", tmp_path / "out.jsonl")


def _gzipped(folder: Path) -> Path:
    import gzip

    path = folder / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(jsonl.dumps(trace()) + b"\n"))
    return path


def test_two_exports_into_one_file(dataset: Path, tmp_path: Path) -> None:
    """The second is refused while the first writes, and the file is whole when it is done."""
    out = tmp_path / "new" / "messages.jsonl"
    assert export(dataset, "messages", out) > 1
    whole = out.read_bytes()
    writing = filelock.FileLock(out.with_name(f".{out.name}.lock"))
    with writing, pytest.raises(Conflict, match=r"Another export writes .*messages\.jsonl.*--out"):
        export(dataset, "sharegpt", out)
    assert out.read_bytes() == whole
