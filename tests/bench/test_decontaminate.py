"""The benchmark of decontamination: the rule beside ours, the copies that are planted, and the page."""

import json
from pathlib import Path

import pytest

from bench import decontaminate
from bench.decontaminate import FORMS, Grams, flagged, planted
from r1pipe import jsonl
from r1pipe.curate.contamination import ContaminationIndex, Item

LONG = r"Let $f(x)=\frac{x}{2}$ be the height of a tree after $x$ years; how tall is it when it is nine?"
ITEMS = [Item("b", "1", LONG), Item("b", "2", "Compute $2+2$.")]


def test_open_r1s_rule():
    """Words between white space, in lower case, in a row."""
    rule = Grams(ITEMS, 8)
    assert rule("be THE height of  a\ntree after $x$ today")
    assert not rule("be the height of a tree after, $x$ years;")
    assert not rule("Compute $2+2$.")


@pytest.mark.parametrize(
    ("form", "copy"),
    [
        ("byte-equal", r"Is $\frac{a}{b}=(c)$ so."),
        ("capitals and spaces", r"IS  $\FRAC{A}{B}=(C)$  SO"),
        ("typeset anew", r"Is \(\dfrac{a}{b}=(c)\) so."),
    ],
)
def test_forms_of_copies(form: str, copy: str):
    """A copy says the same in other signs."""
    assert FORMS[form](r"Is $\frac{a}{b}=(c)$ so.") == copy


def test_planted_copies():
    """Every form of every length is counted, and each rule is asked about it."""
    index = ContaminationIndex(ITEMS)
    found = planted(ITEMS, {"r1pipe": decontaminate.ours(index), "8-gram": Grams(ITEMS, 8)})
    assert list(found) == list(FORMS)
    for lengths in found.values():
        assert {name: each["planted"] for name, each in lengths.items()} == {
            "< 8 words": 1,
            "8 to 12": 0,
            "13 and more": 1,
        }
        assert lengths["< 8 words"]["r1pipe"] == lengths["13 and more"]["r1pipe"] == 1
        assert lengths["< 8 words"]["8-gram"] == 0
    assert found["byte-equal"]["13 and more"]["8-gram"] == 1


def test_endings():
    """A row that a rule flags for its ending alone is told from one that it flags for more."""
    ending = "Find the sum of all. Express your answer as a common fraction."
    items = [Item("b", "1", f"A die is thrown twice and shows two and three. {ending}")]
    rows = [
        f"Something else altogether. {ending}",
        f"Yes: a die is thrown twice and shows two and three. {ending}",
        "No.",
    ]
    assert flagged(rows, {"8-gram": Grams(items, 8)}) == {"8-gram": {"flagged": 2, "templates": 1}}


def test_all_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """From files to a page with the claims."""
    train = [{"problem": LONG.replace("nine", "ten")}, {"problem": "What is $7 + 7$, and why?"}]
    words = " ".join(f"word{chr(97 + at % 26)}{chr(97 + at // 26)}" for at in range(600))
    for file, rows in {
        "math/train.jsonl": train,
        "math/math500.jsonl": [{"problem": item.text, "unique_id": item.id} for item in ITEMS],
        "gsm8k/train.jsonl": [{"question": words}] * 4,
        "gsm8k/test.jsonl": [
            {"question": "How many apples has Ann if she has two more than Bob, who has eleven?"}
        ],
    }.items():
        jsonl.write_rows(tmp_path / file, rows)
    out = tmp_path / "out.json"
    code = decontaminate.main(["--data", str(tmp_path), "--out", str(out)])
    result = json.loads(out.read_text())
    assert result["items"] == {"math500": 2, "gsm8k": 1}
    assert result["flagged"]["math"]["r1pipe"] == {"flagged": 1, "templates": 0}
    assert result["by_rule"] == {"math": {"13-gram, math500": 1}, "gsm8k": {}}
    assert result["evidence"][0]["item"] == "1"
    assert [claim["held"] for claim in result["claims"]] == [True, True, True, False]  # one row, as 8-grams
    assert code == 1
    page = out.with_suffix(".md").read_text()
    assert "| math500, byte-equal, < 8 words | 1 | 1 | 0 | 0 | 0 |" in page
    assert capsys.readouterr().out == page
