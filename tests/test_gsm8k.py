"""GSM8K end to end without a model's help: its own solutions as traces, mapped, verified, curated against its
test set, distilled for two steps."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from r1pipe import jsonl, pipeline
from r1pipe.recipe import load_recipe
from r1pipe.shipped import recipe_path
from stages import VERBS
from tests.real_models import write_qwen2

DATA = Path(__file__).resolve().parents[2] / "shared" / "data" / "gsm8k"
ROWS = 120
"""Of the training set; what is planted comes on top."""


def wrong(row: dict[str, Any]) -> dict[str, Any]:
    """The same problem and solution with another right answer."""
    return {**row, "final": str(int(row["final"].replace(",", "")) + 1)}


def with_final(row: dict[str, Any]) -> dict[str, Any]:
    """The answer in a column of its own, as most sets of others have it."""
    solution, _, final = row["answer"].rpartition("####")
    solution, final = f"{solution}####{final}", final.strip()
    return {"question": row["question"], "solution": solution, "final": final}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files of the recipe: real rows, and among them one of each kind that has to go."""
    if not DATA.is_dir():
        pytest.skip("GSM8K is not in ../shared/data")
    train = [with_final(row) for row in jsonl.iter_rows(DATA / "train.jsonl")][:ROWS]
    test = list(jsonl.iter_rows(DATA / "test.jsonl"))
    planted = [
        wrong(train[3] | {"question": f"{train[3]['question']} Think twice, and tell it in full."}),
        {**train[5], "question": train[5]["question"].upper()},
        with_final(test[7]),
        {"question": "How many?", "solution": "Nobody says.", "final": ""},
    ]
    lines = [json.dumps(row) for row in [*train, *planted]] + ['{"question": "torn']
    (tmp_path / "gsm8k-train.jsonl").write_text("\n".join(lines) + "\n")
    jsonl.write_rows(tmp_path / "gsm8k-test.jsonl", test)
    (tmp_path / "qwen").mkdir()
    write_qwen2(tmp_path / "qwen", [row["solution"] for row in train])
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.slow
def test_two_steps_on_gsm8ks_own_solutions(here: Path) -> None:
    """The shipped recipe on the mapped rows: every planted row is in the ledger with its reason, the counts
    add up, and the student takes two steps on what is left."""
    columns = {"prompt": "question", "completion": "solution", "gold": "final", "template": "r1-zero"}
    overrides = [
        "stages.base.model=./qwen",
        f"stages.curated.columns={json.dumps(columns)}",
        "stages.curated.workers=1",
        "stages.curated.validation=0",
        "stages.student.limits.curated=16",
        "stages.student.batch_size=8",
        "stages.student.epochs=1",
    ]
    section = yaml.safe_load(recipe_path("gsm8k-solutions").read_text())
    del section["stages"]["scores"]
    (here / "mine.yaml").write_text(yaml.safe_dump(section))
    made = pipeline.run(load_recipe(here / "mine.yaml", VERBS, overrides), here / "run", jobs=1)
    curated, student = (made[name].manifest for name in ("curated", "student"))
    assert curated is not None and student is not None
    ledger = [jsonl.loads(line) for line in (made["curated"].path / "ledger.jsonl").read_bytes().splitlines()]
    assert {(row["line"], row["name"]) for row in ledger} == {
        (21, "decontaminate"),  # the test set has it with other numbers
        (ROWS + 1, "correct"),
        (ROWS + 2, "exact:trace"),
        (ROWS + 3, "decontaminate"),
        (ROWS + 4, "verify"),
        (ROWS + 5, "reading"),
    }
    assert (curated.metrics["input"], curated.metrics["kept"]) == (ROWS + 5, ROWS - 1)
    assert (student.metrics["step"], student.metrics["rows"]) == (2, 16)
    kept = next(iter(made["curated"].rows()))
    assert kept["prompt"].endswith("Assistant:") and kept["completion"].endswith(f"#### {kept['gold']}")
