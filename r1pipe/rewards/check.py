"""Before a policy learns from rewards: right answers must get them, junk must not.

A judge that fails the problem's own answer (a wrong column, a rule that does not suit) teaches nothing for
hours, and one that passes junk teaches the junk. Both are found here in seconds, on a few items of each task.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from r1pipe.errors import UsageError
from r1pipe.measure.language import Language
from r1pipe.prompting import CLOSE_ANSWER, CLOSE_THINK, OPEN_ANSWER, OPEN_THINK, parse
from r1pipe.rewards.base import Reward, RewardInput, give, total
from r1pipe.rewards.rules import form
from r1pipe.tasks.base import Item, Task, judge_all
from r1pipe.verify.verdict import Completion, Mark, Verdict

ITEMS: Final = 16
"""How many different items of each task are tried."""

THOUGHTS: Final[dict[Language, str]] = {
    "en": "so we have to check this first",
    "zh": "所以我们先检查一下",
    "es": "entonces primero tenemos que ver esto",
    "fr": "donc nous devons voir cela avant tout",
    "de": "also müssen wir das zuerst noch prüfen",
    "it": "quindi prima dobbiamo vedere anche questo",
    "pt": "então precisamos ver isso também agora",
    "nl": "dus moeten we dit eerst nog bekijken",
    "ru": "итак сначала нужно это проверить",
    "ja": "だからまずこれをたしかめる",
    "ko": "그래서 먼저 이것을 확인한다",
    "ar": "إذن يجب أن نتحقق من هذا أولا",
    "he": "אז קודם צריך לבדוק את זה",
    "hi": "तो पहले इसकी जाँच करनी होगी",
}
"""A thinking in each language, so that a right answer also earns the reward `language`."""

JUNK_ANSWER: Final = "lorem ipsum dolor"


@dataclass(frozen=True, slots=True)
class AskedItem:
    """An item as it will be asked."""

    task: Task
    item: Item
    opened: bool
    """Whether its prompt ends in `<think>`."""


@dataclass
class CheckedTask:
    """What came of the check of one task."""

    name: str
    items: int = 0
    unknown: int = 0
    """Items whose right answer the task does not know."""
    right: int = 0
    right_passed: int = 0
    junk: int = 0
    undecided: Counter[str] = field(default_factory=Counter)
    """Reasons of the verdicts that were not decided."""
    right_rewards: list[float] = field(default_factory=list)
    junk_rewards: list[float] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """What is said about it."""
        said = f"Check of {self.items} items of {self.name}: "
        if self.right:
            said += f"right answers {self.right_passed} of {self.right} pass{_between(self.right_rewards)}"
            said += f", {self.unknown} items without a known one" if self.unknown else ""
        else:
            said += "it knows no right answer to try"
        largest = f" (largest reward {max(self.junk_rewards):.2f})" if self.junk_rewards else ""
        said += f", junk 0 of {self.junk}{largest}."
        if self.undecided:
            told = ", ".join(f"{count} {reason}" for reason, count in self.undecided.most_common(3))
            said += f" Undecided: {self.undecided.total()} ({told})."
        return said


def check_rewards(
    asked: Sequence[AskedItem],
    rewards: Mapping[str, Reward],
    weights: Mapping[str, float],
    language: Language,
) -> list[CheckedTask]:
    """Try the right answer and junk on the first `ITEMS` different items of each task.

    A right answer in the right form must pass. Junk must not pass, and what is not in the form must not earn
    the reward for it. Undecided verdicts are counted, and an error only where no right answer is decided.

    Unrelated words may answer an open question, so there they are not held against its judge. One that
    nothing judges teaches by a preference model alone.

    Raises:
        UsageError: the rewards cannot be trusted; the task, the item, the answer and the verdict are named.
    """
    return [_check(items, rewards, weights, THOUGHTS[language]) for items in _by_task(asked)]


def _by_task(asked: Sequence[AskedItem]) -> list[list[AskedItem]]:
    tasks: dict[int, dict[str, AskedItem]] = {}
    for each in asked:
        items = tasks.setdefault(id(each.task), {})
        if len(items) < ITEMS:
            items.setdefault(each.item.id, each)
    return [list(items.values()) for items in tasks.values()]


@dataclass(frozen=True, slots=True)
class _Try:
    """One completion, and what it must be worth."""

    asked: AskedItem
    text: str
    what: str
    right: bool | None
    """Whether it must pass; None for what may do for an open question."""
    formed: bool

    @property
    def completion(self) -> Completion:
        return Completion(self.text, self.asked.opened)


def _check(
    items: Sequence[AskedItem], rewards: Mapping[str, Reward], weights: Mapping[str, float], thought: str
) -> CheckedTask:
    answers = [each.task.right_answer(each.item) for each in items]
    tries = [one for each, right in zip(items, answers, strict=True) for one in _tries(each, right, thought)]
    verdicts = judge_all([(each.asked.task, each.asked.item, each.completion) for each in tries])
    given = [
        RewardInput(each.asked.item, each.completion, parse(each.text, each.asked.opened), verdict)
        for each, verdict in zip(tries, verdicts, strict=True)
    ]
    if "preference" not in rewards:
        _require_judged(tries, verdicts)
    checked = CheckedTask(items[0].task.name, len(items), unknown=answers.count(None))
    for each, judged, earned in zip(tries, given, give(rewards, given), strict=True):
        _note(checked, each, judged, total(earned, weights))
    if checked.right and not checked.right_rewards:
        first = next(i for i, each in enumerate(tries) if each.right)
        raise _untrusted(tries[first], given[first], "no right answer could be decided")
    return checked


def _require_judged(tries: Sequence["_Try"], verdicts: Sequence[Verdict]) -> None:
    for each, verdict in zip(tries, verdicts, strict=True):
        if verdict.mark is Mark.UNJUDGED:
            raise UsageError(
                f"Nothing judges answers to item {each.asked.item.id!r} of task {each.asked.task.name!r}, so "
                "there is nothing to learn from. Give `preference` a weight in `rewards`, with a "
                "`preference_model`; or give the task a `rule`."
            )


def _tries(asked: AskedItem, right: str | None, thought: str) -> Iterator[_Try]:
    """The right answer in its form, and junk: nothing, other words, the right answer in the wrong place."""
    opens = "" if asked.opened else f"{OPEN_THINK} "

    def whole(answer: str) -> str:
        if not asked.item.reasoning:
            return answer
        return f"{opens}{thought} {CLOSE_THINK} {OPEN_ANSWER} {answer} {CLOSE_ANSWER}"

    if right is not None:
        yield _Try(asked, whole(right), "the right answer", True, True)
    yield _Try(asked, "", "an empty completion", False, False)
    words = None if asked.task.is_open(asked.item) else False
    yield _Try(asked, whole(JUNK_ANSWER), "unrelated words", words, True)
    kept = JUNK_ANSWER if right is None else right
    answer = f"{OPEN_ANSWER} {kept} {CLOSE_ANSWER}"
    yield _Try(asked, f"{opens}{thought} {answer}", "a thinking that does not end", False, False)
    inside = f"{opens}{thought} {answer} {CLOSE_THINK} {JUNK_ANSWER}"
    yield _Try(asked, inside, "an answer inside the thinking alone", words, False)


def _note(checked: CheckedTask, tried: _Try, given: RewardInput, reward: float | None) -> None:
    """Count one try; raises `UsageError` when it is not worth what it must be."""
    verdict = given.verdict
    checked.right += tried.right is True
    checked.junk += tried.right is False
    if not verdict.decided:
        checked.undecided[verdict.reason] += 1
        return
    if tried.right is not None and verdict.passed != tried.right:
        raise _untrusted(tried, given, "it must pass" if tried.right else "it must fail")
    if bool(form(given)) != tried.formed:
        raise _untrusted(tried, given, f"its form must count as {'right' if tried.formed else 'wrong'}")
    checked.right_passed += tried.right is True
    if tried.right is not None:
        (checked.right_rewards if tried.right else checked.junk_rewards).append(reward or 0.0)


def _untrusted(tried: _Try, given: RewardInput, why: str) -> UsageError:
    item, verdict = given.item, given.verdict
    reason = f" ({verdict.reason})" if verdict.reason else ""
    read = "" if verdict.extracted is None else f", read as {verdict.extracted[:200]!r}"
    return UsageError(
        f"The rewards of task {tried.asked.task.name!r} cannot be trusted. Item {item.id!r}, {tried.what}: "
        f"{tried.text[:500]!r} got the verdict {verdict.mark.value}{reason}{read}; {why}. Look at the task's "
        "`judge` and at the columns that its questions and answers are read from, or take the item out."
    )


def _between(values: Sequence[float]) -> str:
    """` (reward 1.10)` or ` (reward 1.05 to 1.30)`."""
    low, high = (f"{each:.2f}" for each in (min(values), max(values)))
    return f" (reward {low})" if low == high else f" (reward {low} to {high})"
