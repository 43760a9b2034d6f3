"""Right answers made readable: one language, no attempt made twice, a summary of one line.

For its cold start the paper took R1-Zero's outputs in a readable format and had people refine them (section
2.3.1). In the tiny world that refinement is a rule.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from typing import Final, Literal

from pydantic import BaseModel, ConfigDict

from r1pipe.measure.language import in_tiny_world
from r1pipe.measure.trace import read_trace
from r1pipe.prompting import CLOSE_ANSWER, CLOSE_THINK, OPEN_ANSWER, OPEN_THINK, Parsed, parse
from r1pipe.world.words import LANGUAGES, Role

WorldLanguage = Literal["en", "zh"]
"""The languages of the tiny world, the only ones that a rule can translate."""
_VERDICTS: Final = ("yes", "no")


class Rewrite(BaseModel):
    """How traces of the tiny world are made readable; any other text is left as it is."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    language: WorldLanguage = "en"
    """The language that words of the others are translated into, by what they do in a trace."""
    repeats: bool = False
    """Keep a failed attempt that had failed before; without it, it is dropped."""
    summary: bool = True
    """Put one line, `so <expression> = <target>`, between the thinking and the answer."""


def make_readable(text: str, *, opened: bool, target: int | None, how: Rewrite) -> str:
    """A completion rewritten; what is not a well-formed trace of the tiny world comes back as it is.

    >>> make_readable("2 + 3 = 5 bu 3 + 2 = 5 no 2 * 3 = 6 dui </think> <answer> 2 * 3 </answer>",
    ...               opened=True, target=6, how=Rewrite())
    '2 + 3 = 5 no 2 * 3 = 6 yes </think> so 2 * 3 = 6 <answer> 2 * 3 </answer>'
    """
    parts = parse(text, opened)
    if not parts.fits(reasoning=True) or not _of_the_tiny_world(parts):
        return text
    thinking = _translated(parts.thinking or "", how.language)
    if not how.repeats:
        thinking = without_repeats(thinking)
    summary = _translated(parts.summary, how.language)
    if how.summary and target is not None:
        summary = f"{LANGUAGES[how.language]['so']} {parts.answer} = {target}"
    begins = "" if opened else OPEN_THINK
    words = (begins, thinking, CLOSE_THINK, summary, OPEN_ANSWER, parts.answer, CLOSE_ANSWER)
    return " ".join(word for word in words if word)


def without_repeats(thinking: str) -> str:
    """A trace without the attempts that fail as an earlier one did, nor the change of mind before them."""
    failed: set[tuple[object, ...]] = set()
    kept: list[str] = []
    for passage in _passages(thinking.split()):
        keys = {attempt.key for attempt in read_trace(" ".join(passage)).attempts}
        fails = _roles().get(passage[-1]) == "no"
        if fails and keys and keys <= failed:
            continue
        if fails:
            failed |= keys
        kept += passage
    return " ".join(kept)


def _passages(tokens: Sequence[str]) -> Iterator[list[str]]:
    """Cut a trace after each verdict."""
    passage: list[str] = []
    for token in tokens:
        passage.append(token)
        if _roles().get(token) in _VERDICTS:
            yield passage
            passage = []
    if passage:
        yield passage


def _translated(text: str, language: WorldLanguage) -> str:
    words = LANGUAGES[language]
    roles = _roles()
    return " ".join(words[roles[token]] if token in roles else token for token in text.split())


def _of_the_tiny_world(parts: Parsed) -> bool:
    return in_tiny_world(f"{parts.thinking} {parts.summary} {parts.answer}".split())


@cache
def _roles() -> dict[str, Role]:
    return {word: role for words in LANGUAGES.values() for role, word in words.items()}
