"""What the steps find that look at each row alone: pure functions of a trace."""

import re
from collections.abc import Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from r1pipe.curate.contamination import ContaminationIndex, Hit, read_benchmark
from r1pipe.curate.finding import Fault, Finding, Look
from r1pipe.curate.mapping import Trace, read_question
from r1pipe.curate.sources import labelled
from r1pipe.curate.words import read, repeated
from r1pipe.measure.identify import WORDS
from r1pipe.measure.language import Language, consistency, in_tiny_world
from r1pipe.measure.readability import PASSAGE, code_block, overlong_paragraph
from r1pipe.text import shortened
from r1pipe.verify.math import JUDGES, gold_answer, unfit
from r1pipe.verify.verdict import Mark, failed


def truncated(trace: Trace) -> Finding:
    """What the token limit cut off."""
    return Fault("truncated") if trace.truncated else None


def correct(undecided: bool, unjudged: bool) -> Look:
    """What did not pass; the options say what is kept all the same."""

    def look(trace: Trace) -> Finding:
        if trace.verdict is Mark.PASS:
            return None
        if trace.verdict is None:
            return None if unjudged else Fault("no verdict")
        if trace.verdict is Mark.UNDECIDED:
            return None if undecided else _with_reason("undecided", trace)
        return _with_reason("wrong", trace)

    return look


_REASON: Final = 80  # characters of a reason that is counted; in others' rows it may be an essay


def _with_reason(what: str, trace: Trace) -> Fault:
    return Fault(f"{what}: {shortened(trace.reason, _REASON)}".rstrip(": "))


def verify(rule: str, trust: bool) -> Look:
    """The verdict on each answer, by a rule of `JUDGES`; a fault where there is nothing to judge against."""
    judge = JUDGES[rule]

    def look(trace: Trace) -> Finding:
        if trust and trace.verdict is not None:
            return None
        gold = trace.gold
        if isinstance(gold, bool) or not isinstance(gold, str | int | float):
            return Fault("the gold is no answer", shortened(repr(gold), 100), aside=True)
        right = gold_answer(str(gold))
        if (wrong := unfit(right)) is not None:
            return Fault(f"the gold is {wrong}", shortened(right, 100), aside=True)
        answer = trace.parts.answer
        verdict = failed("no answer") if answer is None else judge(right, answer)
        if verdict.reason.startswith("right answer"):
            return Fault("the gold cannot be read", shortened(right, 100), aside=True)
        return verdict

    return look


def well_formed(form: str) -> Look:
    """What has not the form `answer` or `thinking`."""

    def look(trace: Trace) -> Finding:
        parts = trace.parts
        if form == "answer":
            reasoning = parts.thinking is not None if trace.reasoning is None else trace.reasoning
            return None if parts.fits(reasoning) else Fault("not well formed")
        if parts.thinking is None:
            return None if trace.reasoning is False else Fault("no thinking")
        if not parts.closed:
            return Fault("thinking not closed")
        return (
            None if parts.thinking and parts.tail.strip() else Fault("nothing before or after the thinking")
        )

    return look


def length(at_least: int, at_most: int | None) -> Look:
    """What has fewer tokens or more."""

    def look(trace: Trace) -> Finding:
        if trace.tokens < at_least:
            return Fault("too short", trace.tokens)
        return Fault("too long", trace.tokens) if at_most is not None and trace.tokens > at_most else None

    return look


def preferred(at_least: float) -> Look:
    """What a preference model gives less; where none was asked a row stays."""

    def look(trace: Trace) -> Finding:
        if trace.preference is None or trace.preference >= at_least:
            return None
        return Fault("low preference", round(trace.preference, 3))

    return look


# --- Readability


def readable(paragraph: int | None, code: bool, repetition: float) -> Look:
    """What is hard to read; `paragraph` in characters, `repetition` as a share."""

    def look(trace: Trace) -> Finding:
        if paragraph is not None and (longest := overlong_paragraph(trace.completion, paragraph)):
            return Fault("overlong paragraph", f"{len(longest)} characters: {shortened(longest, 80)}")
        if not code and "```" in trace.completion and (begins := code_block(trace.parts.thinking)):
            return Fault("code in the thinking", begins)
        share = repeated(trace.words.hashes, PASSAGE)
        return Fault("repetition", round(share, 3)) if share > repetition else None

    return look


# --- Language

_HAN: Final = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+")
_OTHER_SCRIPT: Final = re.compile(r"[\u0400-\u1cff\u3040-\u30ff\ua4d0-\ud7ff\ufe70-\ufeff\uff66-\uff9d]")
"""Letters that are neither Latin nor Han, Greek ones aside: these are names of variables."""
_LATIN: Final = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_MOST_FOREIGN: Final = 0.005
_LEAST_ENGLISH: Final = 0.1


def single_language(at_least: float, language: Language | None) -> Look:
    """What has less than this share of its words in one language, or in `language`."""

    def look(trace: Trace) -> Finding:
        thinking = trace.parts.thinking
        if thinking is None or _plainly(trace, at_least) in (language or "en", language or "zh"):
            return None
        share = consistency(f"{thinking} {trace.parts.summary}", language)
        if share is None or share >= at_least:
            return None
        return Fault("mixed languages" if language is None else f"not in {language}", round(share, 3))

    return look


def _plainly(trace: Trace, at_least: float) -> Language | None:
    """English or Chinese, where a look is enough to know that a text is in it.

    Counting all words takes longer than all the rest of a row. In any language every other word is a
    common one, so a passage in another that is long enough to matter shows in the hundreds.
    """
    text = trace.completion
    if text.isascii():
        return "en" if _plainly_english(trace) else None
    if _OTHER_SCRIPT.search(text):
        return None
    if not (han := sum(map(len, _HAN.findall(text)))):
        return "en" if _plainly_english(trace) else None
    return "zh" if len(_LATIN.findall(text)) < (1 - at_least) / 2 * han else None


def _plainly_english(trace: Trace) -> bool:
    hashes = trace.words.hashes
    if not len(hashes) or in_tiny_world(trace.completion[:200].split()[:-1]):
        return False
    codes = _common_words().take((hashes >> _SHIFT).view(np.int64))
    english, foreign = (int(np.count_nonzero(codes == each)) for each in (_ENGLISH, _FOREIGN))
    return english >= _LEAST_ENGLISH * len(hashes) and foreign <= _MOST_FOREIGN * len(hashes)


_SHIFT: Final = np.uint64(64 - 20)
_ENGLISH, _FOREIGN = 1, 2


@cache
def _common_words() -> npt.NDArray[np.uint8]:
    """By the first 20 bits of a word's hash: a common English word, one of other languages alone, or 0.

    One in a thousand other words is taken for one of them, which is less than is looked for.
    """
    others = frozenset[str]().union(*(words for language, words in WORDS.items() if language != "en"))
    codes: npt.NDArray[np.uint8] = np.zeros(1 << 20, np.uint8)
    for code, words in ((_FOREIGN, others - WORDS["en"]), (_ENGLISH, WORDS["en"])):
        codes[read(" ".join(sorted(words))).hashes >> _SHIFT] = code
    return codes


# --- Contamination


def index_of(
    files: Sequence[Path], columns: Sequence[str], allow: Sequence[str], containment: float, template: int
) -> ContaminationIndex:
    """Read benchmarks; `UsageError` where one cannot be read."""
    named = zip(files, benchmark_names(files), strict=True)
    items = [item for file, name in named for item in read_benchmark(file, name, columns)]
    return ContaminationIndex(items, allow, containment, template)


def benchmark_names(files: Sequence[Path]) -> list[str]:
    """What benchmarks are called: their files without the ending, with as much of the path as tells them
    apart; a stage's result by its stage.

    >>> benchmark_names([Path("gsm8k/test.jsonl"), Path("math/test.jsonl.gz"), Path("r/asked/v001-1f3a9c2e")])
    ['gsm8k/test', 'math/test', 'asked']
    """
    shown = [file.parent if _VERSION.fullmatch(file.name) else file for file in files]
    bare = [file.with_name(_ENDING.sub("", file.name)) for file in shown]
    names = labelled(bare)
    return names if len(set(names)) == len(set(files)) else labelled(files)


_ENDING: Final = re.compile(r"\.jsonl?(\.gz|\.zst)?$")
_VERSION: Final = re.compile(r"v\d{3,}-[0-9a-f]{8}")  # the folder of one version of a stage's result


SAMPLES: Final = 256
"""Questions of which is remembered what was found: the samples of a problem mostly stand side by side."""


def uncontaminated(index: ContaminationIndex, completions: bool) -> Look:
    """What gives away an item of a benchmark in its question, or in its completion too."""

    @lru_cache(maxsize=SAMPLES)
    def in_question(question: str) -> list[Hit]:
        return index.find(read_question(question), lines=True)

    def look(trace: Trace) -> Finding:
        hits = in_question(trace.question)
        if not hits and completions:
            hits = index.find(trace.words)
        if not hits:
            return None
        return Fault(f"{hits[0].rule} of {hits[0].benchmark}", [_told(hit) for hit in hits[:3]])

    return look


def _told(hit: Hit) -> dict[str, Any]:
    return {
        "rule": hit.rule,
        "benchmark": hit.benchmark,
        "item": hit.item,
        "text": hit.evidence,
        "share": round(hit.share, 3),
    }
