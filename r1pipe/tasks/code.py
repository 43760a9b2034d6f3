"""The judge of programs: they are run against their rows' tests (`exercises`) in the sandbox."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from r1pipe.jsonl import dumps
from r1pipe.prompting import CLOSE_ANSWER, OPEN_ANSWER, Parsed
from r1pipe.tasks.base import Item
from r1pipe.tasks.exercises import Unusable, defined_by, gold_of, is_program, reads_as_python, whole, worded
from r1pipe.tasks.judges import Plain
from r1pipe.verify.isolation import Isolation, Limits
from r1pipe.verify.programs import FunctionTests, PairTests, judge_program
from r1pipe.verify.sandbox import check_sandbox
from r1pipe.verify.verdict import Verdict

QUESTION_COLUMNS: Final = ("question", "problem", "prompt", "text", "description")
_LANGUAGES: Final = (re.compile(r"py(thon)?[\d.]*"), re.compile(""))
_FENCE: Final = re.compile(r"(?P<indent>[ \t]*)(?P<mark>```+|~~~+)[ \t]*(?P<language>[\w+.-]*)[^`]*")
_FARTHER: Final = 3  # columns that a closing fence may lie to the right of its opening one, as in CommonMark


@dataclass(frozen=True)
class CodeJudge(Plain):
    """Judges completions by running the programs in them."""

    waits: ClassVar[bool] = True

    isolation: Isolation = "bubblewrap"
    seconds: float = 6.0
    """Wall time for all function tests of a program together, or for one input."""
    memory_mb: int = 512

    def item(self, row: Mapping[str, Any], question: str | None) -> Item | str:
        """The item that a row describes, or why it describes none. No test is in the question."""
        texts = [row.get(name) for name in QUESTION_COLUMNS] if question is None else [question]
        asked = next((text for text in texts if isinstance(text, str) and text.strip()), None)
        if asked is None:
            return f"no text under {' or '.join(QUESTION_COLUMNS)}"
        try:
            gold = gold_of(row)
            dumps(gold)
        except Unusable as why:
            return str(why)
        except ValueError:  # half of a surrogate pair is in no file, and comes of an escape in JSON
            return "a test is no Unicode text"
        return Item("", worded(asked.strip("\r\n"), gold), gold)

    def unusable(self, items: Sequence[Item]) -> list[str | None]:
        """Nothing is wrong with the items. Raises `EnvironmentUnfit` where no program could be run."""
        if items:
            check_sandbox(self.isolation)
        return super().unusable(items)

    def extract(self, item: Item, parsed: Parsed) -> str | None:
        """The program that a completion gives: never one from its thinking.

        The last block that is marked as Python in the answer, else in all that follows the thinking; else the
        last block without a language; else the answer itself, where it reads as Python. Of several blocks the
        last of those that define most of what the tests call: a solution goes before an example of its use.
        """
        places = [place.removeprefix("\ufeff") for place in (*_answers(parsed.tail), parsed.tail)]
        names = set(item.gold.get("names", ()))
        for language in _LANGUAGES:
            for place in places:
                found = [text for name, text in _blocks(place) if language.fullmatch(name)]
                if found:
                    return max(reversed(found), key=lambda text: len(names & defined_by(text)))
        bare = next((place for place in places if reads_as_python(place)), None)
        if bare is None:
            return None
        # A body keeps the indentation of its first line; a program begins where its first word does.
        return bare.strip() if is_program(bare.strip()) else bare.strip("\r\n")

    def judge(self, item: Item, answer: str) -> Verdict:
        """The verdict on a program; undecided only where the sandbox fails.

        Raises:
            EnvironmentUnfit: programs cannot be run safely on this machine.
        """
        gold, program = item.gold, answer
        tests: FunctionTests | PairTests
        if "pairs" in gold:
            tests = PairTests([(given, expected) for given, expected in gold["pairs"]])
        else:
            program = whole(gold.get("before", ""), gold["names"][0], answer)
            tests = FunctionTests(gold["names"], gold["tests"], gold["prelude"])
        limits = Limits(seconds=self.seconds, memory_mb=self.memory_mb)
        verdict = judge_program(program, tests, limits=limits, isolation=self.isolation)
        return Verdict(verdict.mark, verdict.reason, answer)

    def right_answer(self, item: Item) -> str | None:
        """The row's own solution, if it has one."""
        solution = item.gold["solution"]
        return None if solution is None else str(solution)


def _answers(text: str) -> list[str]:
    """What the last `<answer>` pair holds, as it stands."""
    before, tag, _ = text.rpartition(CLOSE_ANSWER)
    return [before.rpartition(OPEN_ANSWER)[2]] if tag and OPEN_ANSWER in before else []


def _blocks(text: str) -> Iterator[tuple[str, str]]:
    """(language in lower case, content without the fence's indentation) of every fenced block.

    The last one need not be closed. A block that begins inside another one ends that.
    """
    opening, lines = None, list[str]()
    for line in text.split("\n"):
        fence = _FENCE.fullmatch(line)
        if opening is None or (fence is not None and _ends(opening, fence)):
            if opening is not None:
                yield opening["language"].lower(), "\n".join(lines)
            closing = opening is not None and fence is not None and not fence["language"]
            opening, lines = None if closing else fence, []
        else:
            lines.append(re.sub(f"^[ \t]{{0,{len(opening['indent'])}}}", "", line))
    if opening is not None and any(map(str.strip, lines)):
        yield opening["language"].lower(), "\n".join(lines)


def _ends(opening: re.Match[str], fence: re.Match[str]) -> bool:
    """Whether a fence is the end of a block, and not a line of it, such as one in a docstring."""
    return fence["mark"].startswith(opening["mark"]) and (
        len(fence["indent"]) <= len(opening["indent"]) + _FARTHER
    )
