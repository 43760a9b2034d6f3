"""The check of the rewards before a training: right answers must earn them, junk must not."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest

from r1pipe.errors import UsageError
from r1pipe.measure.language import LANGUAGE_NAMES, count_words
from r1pipe.prompting import Parsed
from r1pipe.rewards import AskedItem, CheckedTask, check_rewards, make_rewards
from r1pipe.rewards.check import THOUGHTS
from r1pipe.tasks import Item, Task
from r1pipe.tasks.documents import Documents
from r1pipe.tasks.judges import TextJudge
from r1pipe.tasks.rows import Rows
from r1pipe.verify.verdict import Completion, Verdict, failed, passed, undecided

WEIGHTS = {"accuracy": 1.0, "format": 0.1}


def items(count: int, *, reasoning: bool = True) -> tuple[Item, ...]:
    meta = {"judge": "math"}
    return tuple(
        Item(f"item-{i}", f"What is {i} + 1?", str(i + 1), reasoning, meta=meta) for i in range(count)
    )


def rows(pool: tuple[Item, ...]) -> Rows:
    return Rows(pool, {"math": TextJudge("math")})


def check(
    task: Task,
    asked: tuple[Item, ...],
    *,
    opened: bool = True,
    weights: Mapping[str, float] = WEIGHTS,
    language: Any = "en",
) -> CheckedTask:
    """The check of one task with the rewards of `weights`."""
    rewards = make_rewards(weights, language=language)
    tried = [AskedItem(task, item, opened and item.reasoning) for item in asked]
    (checked,) = check_rewards(tried, rewards, weights, language)
    return checked


WRONG = failed("wrong answer")


@dataclass(frozen=True)
class Odd(Task):
    """A task whose judge says the same of every answer, or what its subclass says."""

    name: ClassVar[str] = "odd"
    verdict: Verdict = WRONG
    right: str | None = "5"

    def items(self, split: str, count: int | None, seed: int) -> list[Item]:
        raise NotImplementedError

    def right_answer(self, item: Item) -> str | None:
        return self.right

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        return self.verdict


class Careless(Odd):
    """Looks for the answer anywhere, the thinking included."""

    def judge(self, item: Item, completion: Completion) -> Verdict:
        return passed() if item.gold in completion.text else failed("wrong answer")


class Unsure(Odd):
    """Is undecided about every second item, and strict about the others."""

    def judge_answer(self, item: Item, answer: str) -> Verdict:
        if int(item.id[-1]) % 2:
            return undecided("comparison timed out")
        return passed() if answer == self.right else failed("wrong answer")


@pytest.mark.parametrize("opened", [True, False])
def test_a_task_that_can_be_trusted(opened: bool) -> None:
    """Of twenty rows sixteen are tried: all right answers pass with the full reward, none of four kinds of
    junk does, whether the prompt opens the thinking or the completion has to."""
    checked = check(rows(items(20)), items(20), opened=opened)
    assert checked.sentence == (
        "Check of 16 items of jsonl: right answers 16 of 16 pass (reward 1.10), junk 0 of 64 (largest reward "
        "0.10)."
    )


def test_direct_answers() -> None:
    """A task without thinking is checked with bare texts, and thinking there counts as junk."""
    documents = Documents()
    asked = tuple(documents.items("seen", 8, 0))
    assert check(documents, asked).sentence.startswith(
        "Check of 8 items of documents: right answers 8 of 8 pass (reward 1.10), junk 0 of 32 "
    )


@pytest.mark.parametrize("language", LANGUAGE_NAMES)
def test_a_right_answer_earns_the_language_too(language: str) -> None:
    """The thinking that is tried is in the language asked for, and in no other."""
    counts = count_words(THOUGHTS[language])  # type: ignore[index]
    assert list(counts) == [language]
    weights = {"accuracy": 1.0, "format": 0.5, "language": 0.2}
    checked = check(rows(items(2)), items(2), weights=weights, language=language)
    assert checked.right_rewards == [pytest.approx(1.7)] * 2


def test_each_task_has_a_check_of_its_own() -> None:
    """Two tasks, though they have one name; an item that is asked twice is tried once."""
    one, other = rows(items(2)), rows(items(3))
    asked = [AskedItem(one, item, True) for item in (*items(2), *items(2))]
    asked += [AskedItem(other, item, True) for item in items(3)]
    checked = check_rewards(asked, make_rewards(WEIGHTS), WEIGHTS, "en")
    assert [(each.items, each.right, each.junk) for each in checked] == [(2, 2, 8), (3, 3, 12)]


def test_no_right_answer_is_known() -> None:
    """The junk is tried all the same, and it is said."""
    assert check(Odd(right=None), items(2)).sentence == (
        "Check of 2 items of odd: it knows no right answer to try, junk 0 of 8 (largest reward 0.10)."
    )


def test_a_judge_that_fails_the_right_answer() -> None:
    """The message names task, item, answer, verdict and reason, and what to look at."""
    with pytest.raises(UsageError) as raised:
        check(Odd(), items(2))
    assert str(raised.value) == (
        "The rewards of task 'odd' cannot be trusted. Item 'item-0', the right answer: 'so we have to check "
        "this first </think> <answer> 5 </answer>' got the verdict fail (wrong answer); it must pass. Look "
        "at the task's `judge` and at the columns that its questions and answers are read from, or take the "
        "item out."
    )


def test_a_judge_that_passes_junk() -> None:
    """One that passes any answer is found by words that belong to no question."""
    said = r"unrelated words: .*lorem ipsum.* got the verdict pass, read as 'x'; it must fail"
    with pytest.raises(UsageError, match=said):
        check(Odd(verdict=passed("x")), items(2))


def test_a_judge_that_reads_the_thinking() -> None:
    """The right answer in a thinking that does not end is no answer."""
    with pytest.raises(UsageError, match=r"'item-4', a thinking that does not end: .* it must fail"):
        check(Careless(), items(5)[4:])


def test_an_answer_that_breaks_the_form() -> None:
    """An answer with a tag in it passes, but would never have the form."""

    class Tagged(Odd):
        def extract(self, item: Item, parsed: Parsed) -> str | None:
            return parsed.answer

        def judge_answer(self, item: Item, answer: str) -> Verdict:
            return failed("wrong answer") if "lorem" in answer else passed(answer)

    with pytest.raises(UsageError, match=r"got the verdict pass.*its form must count as right"):
        check(Tagged(right="<answer> 5"), items(1))


def test_undecided_verdicts_are_told() -> None:
    """Some undecided verdicts do not stop a training; they are counted with their reason."""
    assert check(Unsure(), items(4)).sentence == (
        "Check of 4 items of odd: right answers 2 of 4 pass (reward 1.10), junk 0 of 16 (largest reward "
        "0.10). Undecided: 4 (4 comparison timed out)."
    )


def test_nothing_but_undecided_verdicts_stop_it() -> None:
    """A judge that decides no right answer is not there."""
    with pytest.raises(UsageError, match=r"undecided \(crashed\); no right answer could be decided"):
        check(Odd(verdict=undecided("crashed")), items(2))
