"""Items as prompts in tokens."""

import json
from pathlib import Path

from r1pipe.rollout.asking import ask
from r1pipe.tasks import mixture, task_spec
from r1pipe.world.tokenizer import build_tokenizer


def test_what_cannot_be_asked_is_set_aside_with_its_reason(tmp_path: Path) -> None:
    """A broken row of the task's file, and a prompt of 7 tokens where there is room for 6."""
    path = tmp_path / "rows.jsonl"
    rows = [{"question": "copy red", "answer": "red"}, {"question": "copy red red red red", "answer": "red"}]
    path.write_text("\n".join([*map(json.dumps, rows), "{broken"]))
    spec = task_spec({"name": "jsonl", "path": str(path), "reasoning": False})
    asked = ask(mixture([spec], None, 0), "chat", build_tokenizer(64), room=6)
    assert [each.prompt for each in asked.questions] == ["<|user|> copy red <|assistant|>"]
    assert [len(each.token_ids) for each in asked.questions] == [4]
    long, broken = asked.set_aside
    assert long["reason"] == "the prompt has 7 tokens, and there is room for 6"
    assert (broken["line"], broken["row"]) == (3, "{broken")


def test_a_completion_is_judged_by_its_task() -> None:
    """The row says how it was asked, what came and what the judge said."""
    spec = task_spec("countdown")
    (question,) = ask(mixture([spec], 1, 0), "chat", build_tokenizer(64), room=64).questions
    row = question.judged(3, "1 + 1 = 2 no </think> <answer> 1 + 1 </answer>", tokens=13)
    assert (row["problem_id"], row["sample"], row["opened"]) == (question.item.id, 3, True)
    assert (row["verdict"], row["reason"], row["tokens"]) == ("fail", "other numbers", 13)
    assert question.judged(0, "1 +", tokens=2, truncated=True)["reason"] == "truncated"
