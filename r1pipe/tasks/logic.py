"""Knights and knaves: everybody on the island is one or the other, and an answer says of each which.

Rows as in the data of "On Memorization of Large Language Models in Logical Reasoning" (arXiv 2410.23123).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from r1pipe.tasks.base import Item
from r1pipe.tasks.judges import Plain, text_under
from r1pipe.verify.verdict import Verdict, failed, passed

QUIZ_COLUMNS: Final = ("quiz", "question", "problem")
_USUAL: Final = ("knight", "knave")
_WORD: Final = re.compile(r"[^\W\d_](?:[\w.' -]*[\w.])?")
_MORE: Final = re.compile(r"[^\w\s.,;:()\[\]'\"-]")
"""A sign that is no punctuation, such as one for `not`."""
MAX_LENGTH: Final = 4000
"""Characters of an answer; the longest honest one over eight people is a tenth of that."""
_FILLERS: Final = frozenset(
    {
        "a", "all", "an", "and", "answer", "are", "as", "conclusion", "final", "follows", "hence",
        "identities", "identity", "in", "is", "islanders", "of", "people", "person", "so", "solution",
        "that", "the", "therefore", "they", "this", "thus", "whereas", "while", "who", "with",
    }
)  # fmt: skip
"""Words that may stand between an answer's statements. With `if`, `or` and `not both` it would be none."""


@dataclass(frozen=True)
class LogicJudge(Plain):
    """The task's rows; `gold` is `{"Amelia": "knight", "Evelyn": "knave"}`."""

    def item(self, row: Mapping[str, Any], question: str | None) -> Item | str:
        """From a quiz, the names, and who is a knight; a row may have other words for knight and knave."""
        quiz = question or text_under(row, QUIZ_COLUMNS)
        names, solution, words = row.get("names"), row.get("solution"), row.get("knight_knave")
        if quiz is None:
            return f"no text under {' or '.join(QUIZ_COLUMNS)}"
        if not _are(names, str) or not _are(solution, bool) or len(names or ()) != len(solution or ()):
            return "`names` and `solution` are not as many names and truths"
        assert names is not None and solution is not None
        if len({name.casefold() for name in names}) < len(names):
            return "two people have the same name"
        if not all(_WORD.fullmatch(name) for name in names):
            return "a name is no word"
        truthful, lying = _kinds(words)
        if truthful.casefold() == lying.casefold() or not all(map(_WORD.fullmatch, (truthful, lying))):
            return "knights and knaves are called alike, or by no word"
        gold = {name: truthful if honest else lying for name, honest in zip(names, solution, strict=True)}
        form = ", ".join(f"{name} is a …" for name in names)
        asked = f"{quiz}\nAnswer with the kind of each, and nothing else: {form}."
        return Item("", asked, gold, difficulty=float(len(names)), meta={"kinds": [truthful, lying]})

    def judge(self, item: Item, answer: str) -> Verdict:
        """Pass when the answer says of each person the right kind, and of nobody two."""
        said = read_assignment(answer, list(item.gold), item.meta["kinds"])
        if isinstance(said, str):
            return failed(said, answer[:200])
        text = ", ".join(f"{name} is a {said[name]}" for name in item.gold)
        return passed(text) if said == item.gold else failed("wrong assignment", text)

    def right_answer(self, item: Item) -> str:
        """The row's own assignment."""
        return ", ".join(f"{name} is a {kind}" for name, kind in item.gold.items())


def read_assignment(answer: str, names: Sequence[str], kinds: Sequence[str]) -> dict[str, str] | str:
    """Who is what by an answer, or why it says that of not all of them or says anything else.

    >>> read_assignment("(1) Zoey is a knave, (2) Al is a knight.", ["Zoey", "Al"], ["knight", "knave"])
    {'Zoey': 'knave', 'Al': 'knight'}
    """
    if len(answer) > MAX_LENGTH:
        return "answer too long"
    text = re.sub(r"[*_`$]|\\text(?:bf|it)?\b", "", answer)
    said: dict[str, str] = {}
    statement = _statement(names, kinds)
    for match in statement.finditer(text):
        said_kind = match["kind"].casefold()
        kind = next(kind for kind in kinds if said_kind in (kind.casefold(), f"{kind.casefold()}s"))
        if match["no"]:
            kind = kinds[1 - list(kinds).index(kind)]
        for name in _named(match["who"], names):
            if said.setdefault(name, kind) != kind:
                return "says two things of one person"
    if missing := [name for name in names if name not in said]:
        return f"says nothing of {len(missing)} of them"
    left = statement.sub(" ", text)
    more = any(word.casefold() not in _FILLERS for word in re.findall(r"[^\W\d_]+", left))
    return "says more than who is what" if more or _MORE.search(left) else said


def _statement(names: Sequence[str], kinds: Sequence[str]) -> re.Pattern[str]:
    """`Amelia is a knight`, `Amelia: knave`, `Amelia and Evelyn are knights`, `Amelia is not a knight`."""
    name = rf"(?:{'|'.join(map(re.escape, sorted(names, key=len, reverse=True)))})"
    kind = "|".join(map(re.escape, kinds))
    who = rf"(?<![\w.-]){name}(?![\w-])(?:(?:\s*,\s*(?:and\s+)?|\s+and\s+){name}(?![\w-]))*"
    verb = r"(?:\s+(?:is|are)(?P<no>\s+not)?(?:\s+both)?(?:\s+an?)?\s+|\s*(?::|=|->|→|-|–)\s*(?:an?\s+)?)"
    return re.compile(rf"(?P<who>{who}){verb}(?P<kind>(?:{kind})s?)\b", re.IGNORECASE)


def _named(who: str, names: Sequence[str]) -> list[str]:
    found = r"(?<![\w.-]){}(?![\w-])"
    return [name for name in names if re.search(found.format(re.escape(name)), who, re.IGNORECASE)]


def _kinds(words: Any) -> tuple[str, str]:
    given = (words.get("knight"), words.get("knave")) if isinstance(words, Mapping) else (None, None)
    return (str(given[0]), str(given[1])) if all(isinstance(word, str) for word in given) else _USUAL


def _are(values: Any, kind: type) -> bool:
    return isinstance(values, list) and bool(values) and all(type(value) is kind for value in values)
