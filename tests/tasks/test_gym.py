"""reasoning-gym's tasks: asked and judged in workers that hold no secret and may be killed."""

import importlib.util
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from r1pipe.errors import EnvironmentUnfit, UsageError
from r1pipe.tasks import Item, Task, gym, gym_worker, task_spec
from r1pipe.verify.pool import Pool
from r1pipe.verify.verdict import Completion, Mark

pytest.importorskip("reasoning_gym", reason="the extra 'gym' is not installed")

CONFIG = '{"seed":0,"size":50}'


def task(name: str, **options: Any) -> Task:
    return task_spec({"name": f"gym:{name}", **options}).make()


def test_items() -> None:
    """Different questions, the same for the same seed, a longer list starting with the shorter one."""
    chain_sum = task("chain_sum", size=200, config={"max_terms": 3})
    items = chain_sum.items("all", 40, 0)
    assert len({item.id for item in items}) == 40
    assert chain_sum.items("all", 60, 0)[:40] == items
    assert chain_sum.items("all", 40, 1) != items
    assert items[0].question.startswith("State the final answer to the following arithmetic problem: ")
    assert items[0].id.startswith("gym:chain_sum:")


def test_splits_are_apart_and_come_again() -> None:
    """One in five is held out; a pass over a split gives each item once, more than there are begin anew."""
    few = task("chain_sum", size=60)
    seen, held = few.items("seen", None, 0), few.items("held-out", None, 0)
    assert len(seen) + len(held) == 60 and 4 <= len(held) <= 24
    assert not {item.id for item in seen} & {item.id for item in held}
    assert few.items("seen", len(seen) + 5, 0)[-5:] == few.items("seen", 5, 0)


def test_judging() -> None:
    """The generator's own scorer decides, and only full marks pass."""
    sums = task("chain_sum", size=20)
    (item,) = sums.items("all", 1, 0)
    assert sums.right_answer(item) == item.gold
    right = Completion(f"so </think> <answer> {item.gold} </answer>", opened=True)
    assert sums.judge(item, right).passed
    assert (
        sums.judge(item, Completion("so </think> <answer> 123456 </answer>", True)).reason == "wrong answer"
    )
    # This scorer gives part of the marks to a text that holds the answer.
    assert sums.judge_answer(item, f"perhaps {item.gold}?").mark is Mark.FAIL
    assert sums.judge_answer(item, "9" * 20_000).reason == "answer too long"


def test_a_generator_that_only_scores() -> None:
    """Some have no right answer of their own: then none is known, and their scorer still decides."""
    cube = task("rubiks_cube", size=5)
    (item,) = cube.items("all", 1, 0)
    assert item.gold is None and cube.right_answer(item) is None
    assert cube.judge_answer(item, "U").mark is Mark.FAIL


def test_a_scorer_that_passes_junk_decides_nothing() -> None:
    """`game_of_life_halting` gives full marks to any text where the answer is True."""
    life = task("game_of_life_halting", size=20)
    marks = {life.judge_answer(item, "True").reason for item in life.items("all", 8, 0)}
    assert "the scorer passes 'junk'" in marks


def test_a_scorer_that_cannot_read_an_answer_fails_it() -> None:
    """It reads its own right answer, so that it is the answer that is at fault."""
    primes = task("prime_factorization", size=5)
    (item,) = primes.items("all", 1, 0)
    assert primes.judge_answer(item, "junk").reason == "the scorer cannot read it: ValueError"
    assert primes.judge_answer(item, str(item.gold)).passed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"name": "gym:no_such"}, "has no generator 'no_such'"),
        ({"name": "gym:chain_sum", "config": {"nonsense": 1}}, "refuses: TypeError: .*'nonsense'"),
        ({"name": "gym:chain_sum", "config": {"min_terms": 9, "max_terms": 2}}, "refuses: AssertionError"),
    ],
)
def test_bad_requests(options: dict[str, Any], message: str) -> None:
    """An unknown generator or option is told, with where to look."""
    with pytest.raises(UsageError, match=message):
        task_spec(options).make().items("all", 1, 0)
    with pytest.raises(UsageError, match="has no split"):
        task("chain_sum").items("train", 1, 0)


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the library the task says how to get it."""
    monkeypatch.setattr(gym, "find_spec", lambda name: None)
    with pytest.raises(EnvironmentUnfit, match=r"pip install 'r1pipe\[gym\]'"):
        task("chain_sum")
    assert gym.generators() == []


def test_generators() -> None:
    """All of the library's, by name."""
    found = gym.generators()
    assert len(found) > 100 and "chain_sum" in found


@pytest.mark.parametrize(
    "answer",
    [
        "[setattr(__import__('sys').modules['r1pipe.tasks.gym_worker'],'_scoring',False), "
        "open('{canary}','w').write('x')]",
        "[setattr(__import__('sys').modules['r1pipe.tasks.gym_worker'],'_scored',lambda *a: 1.0),'x'][1:]",
        "[open][0]('{canary}', 'w')",
        "exec(chr(111))",
        "__import__('os').system('touch {canary}')",
        "open('{canary}', 'w').write('x')",
        "__import__('subprocess').run(['touch', '{canary}'])",
        "__import__('socket').create_connection(('127.0.0.1', 9))",
        "__import__('ctypes').CDLL(None).system(b'touch {canary}')",
        "__import__('pathlib').Path('{canary}').touch()",
        "[c for c in object.__subclasses__() if c.__name__ == 'Popen'][0](['touch', '{canary}'])",
        "__import__('os')._exit(0)",
        "9**9**9**9",
        "(" * 5000,
        "\x00",
    ],
)
@pytest.mark.parametrize("name", ["countdown", "spiral_matrix"])
def test_hostile_answers(name: str, answer: str, tmp_path: Path) -> None:
    """What `eval` or sympy's parser would run reaches nothing, passes never, and leaves the worker whole."""
    canary = tmp_path / "canary"
    evaluating = task(name, size=5)
    (item,) = evaluating.items("all", 1, 0)
    begun = time.monotonic()
    verdict = evaluating.judge_answer(item, answer.replace("{canary}", str(canary)))
    assert not verdict.passed and time.monotonic() - begun < gym.SCORE_SECONDS + 10
    assert not canary.exists()
    assert evaluating.judge_answer(item, str(item.gold)).passed
    assert not evaluating.judge_answer(item, "nonsense at all").passed


@pytest.mark.parametrize("answer", ["44 or 7", "-44", "nan", "0", "not 44", "44 45", "forty"])
def test_guesses(answer: str) -> None:
    """Several of the scorers look for the right number in a text; here it is one number, of its sign."""
    assert gym._plainly_wrong("44", answer) is not None
    assert gym._plainly_wrong("44", "$44.00") is None


def test_hedges() -> None:
    """A word that leaves it open makes several answers, unless the right one has it too."""
    assert gym._plainly_wrong("Zoey is a knight", "not Zoey is a knight") == "more than one answer"
    assert gym._plainly_wrong("a and not b", "a and not b") is None


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("[1, 2, 3]", True), ("[['a', 'b']]", True), ("x**2 + 3*x - sin(x)", True), ("(3 + 4) * -5", True),
        ("pi / 2", True), ("open('x')", False), ("().__class__", False), ("[x for x in y]", False),
        ("lambda: 1", False), ("exec", False), ("Integral(x, x)", False), ("expand(x)", False),
        ("1 2", False), ("f(x)", False), ("sin(x, y=1)", False),
    ],
)  # fmt: skip
def test_plain_arithmetic(text: str, plain: bool) -> None:
    """What a scorer that evaluates may be given: no names but single letters, no calls but of functions."""
    assert gym_worker._is_arithmetic(text) is plain


def test_the_same_problems_in_every_process() -> None:
    """Some generators depend on the order of a set, which every worker has the same."""
    letters = task("isomorphic_strings", size=30)
    first = letters.items("all", None, 0)
    assert letters.items("all", None, 0) == first
    assert all(letters.judge_answer(item, str(item.gold)).passed for item in first[:5])


def test_the_worker_in_process() -> None:
    """What a worker answers, without the process around it."""
    assert "chain_sum" in gym_worker.answer(["names"])
    (entry,) = gym_worker.answer(["entries", "chain_sum", CONFIG, [3]])
    asked = ["score", "chain_sum", CONFIG, 3, entry["question"]]
    assert gym_worker.answer([*asked, entry["answer"]]) == (Mark.PASS, "")
    assert gym_worker.answer([*asked, "x"]) == (Mark.FAIL, "wrong answer")
    other = gym_worker.answer(["score", "chain_sum", CONFIG, 3, "another question", "x"])
    assert other == (Mark.UNDECIDED, "the generator has made another problem")
    assert "no generator 'nothing'" in gym_worker.answer(["entries", "nothing", CONFIG, [0]])
    assert "refuses: TypeError" in gym_worker.answer(["entries", "chain_sum", '{"a":1}', [0]])
    (primes,) = gym_worker.answer(["entries", "prime_factorization", CONFIG, [0]])
    unreadable = gym_worker.answer(["score", "prime_factorization", CONFIG, 0, primes["question"], "junk"])
    assert unreadable == (Mark.FAIL, "the scorer cannot read it: ValueError")


def test_what_is_refused_while_scoring(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Computing and reading the library is allowed; anything else of the machine is not."""
    gym_worker._refuse("os.system", ())
    monkeypatch.setattr(gym_worker, "_scoring", True)
    gym_worker._refuse("import", ("sympy",))
    gym_worker._refuse("open", (importlib.util.find_spec("reasoning_gym").origin, "rb", 0))  # type: ignore[union-attr]
    for event, args in [
        ("os.system", ("ls",)),
        ("socket.connect", ()),
        ("open", (str(tmp_path / "a"), "r", 0)),
        ("open", (importlib.util.__file__, "w", 0o1101)),
        ("open", (3, "r", 0)),
    ]:
        with pytest.raises(PermissionError, match="an answer may not cause"):
            gym_worker._refuse(event, args)


def test_a_slow_generator_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Making items has a deadline too."""
    monkeypatch.setattr(gym, "GENERATE_SECONDS", 0.001)
    with pytest.raises(UsageError, match="making items timed out"):
        task("knight_swap").items("all", 1, 0)


def test_a_slow_scorer_is_undecided(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge's own time-out is nobody's fault."""
    sums = task("chain_sum", size=5)
    item = Item("i", "q", "1", meta={"index": 0})
    with closing(Pool("r1pipe.tasks.gym_worker", size=1, deadline=0.001)) as pool:
        monkeypatch.setattr(gym, "_pool", lambda: pool)
        verdict = sums.judge_answer(item, "1")
    assert (verdict.mark, verdict.reason) == (Mark.UNDECIDED, "scorer timed out")


def test_a_library_that_cannot_be_asked_is_no_empty_list(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else every generator would seem not to exist."""
    monkeypatch.setattr(gym, "GENERATE_SECONDS", 0.0001)
    with pytest.raises(EnvironmentUnfit, match="could not be asked for its generators: timed out"):
        gym.generators()
