"""Knights and knaves: the whole assignment, and nothing but the assignment."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.tasks import Item, task_spec
from r1pipe.tasks.logic import LogicJudge, read_assignment
from r1pipe.verify.verdict import Completion

DATA = Path(__file__).parents[3] / "shared" / "data" / "knights_knaves" / "kk_3ppl_test.parquet"
ROW = {
    "quiz": "You meet Amelia, Al and Evelyn. Who is what?",
    "names": ["Amelia", "Al", "Evelyn"],
    "solution": [True, True, False],
}
JUDGE = LogicJudge()
ALIKE = "knights and knaves are called alike, or by no word"


def item() -> Item:
    made = JUDGE.item(ROW, None)
    assert isinstance(made, Item)
    return made


def test_item() -> None:
    """The question tells the form of an answer and gives nothing away; the gold is the assignment."""
    assert item().question == (
        "You meet Amelia, Al and Evelyn. Who is what?\n"
        "Answer with the kind of each, and nothing else: Amelia is a …, Al is a …, Evelyn is a …."
    )
    assert item().gold == {"Amelia": "knight", "Al": "knight", "Evelyn": "knave"}
    assert item().difficulty == 3
    assert JUDGE.right_answer(item()) == "Amelia is a knight, Al is a knight, Evelyn is a knave"


@pytest.mark.parametrize(
    "answer",
    [
        "Amelia is a knight, Al is a knight, and Evelyn is a knave.",
        "(1) Amelia is a knight\n(2) Al is a knight\n(3) Evelyn is a knave",
        "Therefore, Amelia and Al are knights, while Evelyn is a knave.",
        "**Amelia**: Knight; **Al**: Knight; **Evelyn**: Knave",
        "evelyn = knave, al -> knight, amelia → knight",
        "Evelyn is not a knight. Amelia and Al are both knights.",
        "Amelia, Al are knights, Evelyn is a knave, so Evelyn is a knave",
    ],
)
def test_right(answer: str) -> None:
    """Any plain wording of the whole assignment, in any order."""
    verdict = JUDGE.judge(item(), answer)
    assert verdict.passed
    assert verdict.extracted == "Amelia is a knight, Al is a knight, Evelyn is a knave"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("Amelia is a knight, Al is a knave, Evelyn is a knave", "wrong assignment"),
        ("Amelia is a knight, Evelyn is a knave", "says nothing of 1 of them"),
        ("", "says nothing of 3 of them"),
        ("Amelia and Al are knights, Evelyn is a knave, Al is a knave", "says two things of one person"),
        ("Amelia and Al are knights, Evelyn is a knave, or Zoe is a knave", "says more than who is what"),
        ("¬Amelia is a knight, Al is a knight, Evelyn is a knave", "says more than who is what"),
        ("~(Amelia is a knight), Al is a knight, Evelyn is a knave", "says more than who is what"),
        ("If Amelia is a knight, Al is a knight, Evelyn is a knave", "says more than who is what"),
        ("Amelia is a knight, Al is a knight, Evelyn is a knave " * 100, "answer too long"),
        ("Amelia is a knight, Pal is a knight, Evelyn is a knave", "says nothing of 1 of them"),
    ],
)
def test_wrong(answer: str, reason: str) -> None:
    """Part of it, contradictions, guesses and conditions all fail."""
    verdict = JUDGE.judge(item(), answer)
    assert (verdict.passed, verdict.decided, verdict.reason) == (False, True, reason)


def test_other_words() -> None:
    """A row may call knights and knaves something else."""
    row = {**ROW, "knight_knave": {"knight": "saint", "knave": "sinner"}}
    made = JUDGE.item(row, "Who?")
    assert isinstance(made, Item) and made.gold["Evelyn"] == "sinner"
    assert JUDGE.judge(made, "Amelia and Al are saints, Evelyn is a sinner").passed
    assert not JUDGE.judge(made, "Amelia and Al are knights, Evelyn is a knave").passed


def test_names_and_kinds_of_other_forms() -> None:
    """A name inside another, one with a hyphen or full stops, and a kind that ends in s."""
    names = ["Mary", "Mary-Ann", "J.R.", "Anne Marie"]
    row = {
        **ROW,
        "names": names,
        "solution": [True, False, True, False],
        "knight_knave": {"knight": "boss", "knave": "serf"},
    }
    made = JUDGE.item(row, None)
    assert isinstance(made, Item)
    assert JUDGE.judge(made, JUDGE.right_answer(made)).passed
    assert not JUDGE.judge(made, "Mary-Ann is a boss, J.R. is a boss, Anne Marie is a serf").passed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"quiz": " "}, "no text under quiz or question or problem"),
        ({"names": ["A", "B"]}, "`names` and `solution` are not as many names and truths"),
        ({"solution": [1, 0, 1]}, "`names` and `solution` are not as many names and truths"),
        ({"names": ["A", "a", "B"]}, "two people have the same name"),
        ({"names": ["A", "", "B"]}, "a name is no word"),
        ({"names": ["A", " C", "B"]}, "a name is no word"),
        (
            {"knight_knave": {"knight": "x", "knave": "X"}},
            ALIKE,
        ),
        (
            {"knight_knave": {"knight": "", "knave": "b"}},
            ALIKE,
        ),
    ],
)
def test_broken_rows(change: dict[str, object], reason: str) -> None:
    """A row that is no puzzle says why."""
    assert JUDGE.item({**ROW, **change}, None) == reason


@given(st.text(), st.permutations(["Ann", "Anna", "Bo"]))
def test_never_raises(text: str, names: list[str]) -> None:
    """Whatever the answer is; a name inside another is told apart."""
    found = read_assignment(text, names, ("knight", "knave"))
    assert isinstance(found, str) or set(found) == set(names)
    whole = "Ann is a knave, Anna is a knight, Bo is a knave"
    said = {"Ann": "knave", "Anna": "knight", "Bo": "knave"}
    assert read_assignment(whole, names, ("knight", "knave")) == said


@pytest.mark.skipif(not DATA.exists(), reason="the shared puzzles are not beside this checkout")
def test_real_rows() -> None:
    """Every row of a public set is a puzzle whose own solution passes, and its opposite fails."""
    task = task_spec({"name": "logic", "path": str(DATA)}).make()
    items = task.items("all", None, 0)
    assert (len(items), len(task.bad)) == (100, 0)
    for each in items:
        right = str(task.right_answer(each))
        assert task.judge(each, Completion(f"so </think> <answer> {right} </answer>", opened=True)).passed
        first = next(iter(each.gold.values()))
        flipped = right.replace(first, "knave" if first == "knight" else "knight", 1)
        assert task.judge_answer(each, flipped).reason == "wrong assignment"
