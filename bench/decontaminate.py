"""Decontamination of real data: MATH and GSM8K against their test sets, with copies of test items planted.

    python bench/decontaminate.py --data ../shared/data

Beside r1pipe's three rules stand single n-gram sizes as open-r1's `scripts/decontaminate.py` compares them:
lower case, words parted by white space, a row is flagged when it shares one n-gram (its default is 8). The
exit code is 1 when a claim is missed.
"""

import argparse
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

if __name__ == "__main__":  # run as a file, it stands beside its helpers and not above them
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench.claims import Claim, claims_table
from bench.common import machine, machine_line, table, write_result
from r1pipe import jsonl
from r1pipe.curate.contamination import ContaminationIndex, Hit, Item, read_benchmark
from r1pipe.curate.words import read

SIZES: Final = (8, 10, 13)
OURS: Final = "r1pipe"
TRAIN: Final = {"math": ("math/train.jsonl", "problem"), "gsm8k": ("gsm8k/train.jsonl", "question")}
BENCHMARKS: Final = {"math500": "math/math500.jsonl", "gsm8k": "gsm8k/test.jsonl"}
LENGTHS: Final = {"< 8 words": (0, 8), "8 to 12": (8, 13), "13 and more": (13, 10**6)}
TEMPLATES: Final = (
    r"relatively prime positive integers\W+(find|compute)",
    r"express your answer as a common fraction",
    r"express your answer (in|to|as) \w+ \w+ \w+ \w+",
    r"enter your answer (as|in) ",
    r"enter all (the )?(real )?(solutions|values|roots)",
)
"""Phrases with which problems end, written down by hand from MATH train."""
_TEMPLATE: Final = re.compile("|".join(TEMPLATES), re.IGNORECASE)
_BYTES: Final = 8192


# --- The rules


class Grams:
    """One n-gram size: open-r1's rule."""

    def __init__(self, items: Iterable[Item], n: int) -> None:
        self._n = n
        self._known = {gram for item in items for gram in self._grams(item.text)}

    def __call__(self, text: str) -> bool:
        """Whether a text shares an n-gram with an item."""
        return not self._known.isdisjoint(self._grams(text))

    def _grams(self, text: str) -> list[str]:
        words = text.lower().split()
        return [" ".join(words[at : at + self._n]) for at in range(len(words) - self._n + 1)]


def ours(index: ContaminationIndex) -> Callable[[str], list[Hit]]:
    """r1pipe's rules, on a prompt."""
    return lambda text: index.find(read(text), lines=True)


# --- Planting


def as_it_is(text: str) -> str:
    """A byte-equal copy."""
    return text


def respaced(text: str) -> str:
    """A copy in capitals and other spaces, with no stop at its end."""
    return re.sub(r"\s+", "  ", text.strip()).rstrip(".").upper()


def typeset(text: str) -> str:
    r"""A copy that another's macros have set: `\(…\)` for `$…$`, `\dfrac`, brackets that grow, loose
    formulas."""
    for old, new in (("\\frac", "\\dfrac"), ("\\left", ""), ("\\right", "")):
        text = re.sub(re.escape(old) + r"(?![a-zA-Z])", lambda _, new=new: new, text)
    text = re.sub(r"(?<!\\)\$([^$]+)\$", lambda found: rf"\({found[1]}\)", text)
    return re.sub(
        r"(?<=\w)([=+])(?=\w)", r" \1 ", text.replace("(", r"\left(") if "\\(" not in text else text
    )


def wrapped(text: str) -> str:
    """A copy in a prompt's words."""
    return (
        f"Solve the following problem.\n\n{text}\n\n"
        "Please reason step by step, and put your final answer within \\boxed{}."
    )


FORMS: Final[Mapping[str, Callable[[str], str]]] = {
    "byte-equal": as_it_is,
    "capitals and spaces": respaced,
    "typeset anew": typeset,
    "in a prompt": wrapped,
}


# --- What is measured


def flagged(rows: Sequence[str], rules: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """How many rows each rule flags, and how many of those that merely end as problems do."""
    return {
        name: {
            "flagged": sum(map(bool, found)),
            "templates": sum(bool(hit) and _only_template(rows[at], rule) for at, hit in enumerate(found)),
        }
        for name, rule in rules.items()
        for found in [[rule(row) for row in rows]]
    }


def _only_template(row: str, rule: Callable[[str], Any]) -> bool:
    """Whether a flagged row is no more flagged without the phrase that problems end in."""
    found = _TEMPLATE.search(row)
    return found is not None and not rule(row[: found.start()] + "\n") and not rule(row[found.end() :])


def planted(items: Sequence[Item], rules: Mapping[str, Callable[[str], Any]]) -> dict[str, Any]:
    """How many copies of test items each rule finds, by how they were copied and how long they are."""
    told: dict[str, Any] = {}
    for form, copy in FORMS.items():
        for length, (least, end) in LENGTHS.items():
            texts = [copy(item.text) for item in items if least <= len(item.text.split()) < end]
            told.setdefault(form, {})[length] = {
                "planted": len(texts),
                **{name: sum(bool(rule(text)) for text in texts) for name, rule in rules.items()},
            }
    return told


def speed(index: ContaminationIndex, texts: Sequence[str]) -> float:
    """Texts of 8 KB a second, on one core, the reading of their words included."""
    joined = "\n\n".join(texts)
    pieces = [joined[at : at + _BYTES] for at in range(0, len(joined) - _BYTES, _BYTES)]
    begun = time.perf_counter()
    for piece in pieces:
        index.find(read(piece))
    return len(pieces) / (time.perf_counter() - begun)


def measure(data: Path) -> dict[str, Any]:
    """Everything, from the files."""
    items = {name: read_benchmark(data / file, name) for name, file in BENCHMARKS.items()}
    every = [item for each in items.values() for item in each]
    index = ContaminationIndex(every)
    rules: dict[str, Callable[[str], Any]] = {
        OURS: ours(index),
        **{f"{n}-gram": Grams(every, n) for n in SIZES},
    }
    rows = {
        name: [str(row[column]) for row in jsonl.iter_rows(data / file)]
        for name, (file, column) in TRAIN.items()
    }
    hits = {name: [hit for text in texts for hit in ours(index)(text)] for name, texts in rows.items()}
    return {
        "items": dict(index.sizes),
        "only_exact": dict(index.exact_only),
        "rows": {name: len(texts) for name, texts in rows.items()},
        "flagged": {name: flagged(texts, rules) for name, texts in rows.items()},
        "by_rule": {
            name: dict(Counter(f"{hit.rule}, {hit.benchmark}" for hit in found).most_common())
            for name, found in hits.items()
        },
        "of_math500_alone": {f"{n}-gram": sum(map(Grams(items["math500"], n), rows["math"])) for n in SIZES},
        "planted": {name: planted(each, rules) for name, each in items.items()},
        "evidence": [_shown(hit) for hit in _one_of_each(hits["math"])],
        "texts_per_second": speed(index, rows["gsm8k"]),
    }


def _one_of_each(hits: Sequence[Hit]) -> list[Hit]:
    """The first hits of different items."""
    return list({hit.item: hit for hit in reversed(hits)}.values())[::-1][:12]


def _shown(hit: Hit) -> dict[str, Any]:
    return {"rule": hit.rule, "item": hit.item, "share": round(hit.share, 2), "evidence": hit.evidence}


# --- What it comes to


def claims(result: Mapping[str, Any]) -> list[Claim]:
    """What was promised."""
    copies = [of for each in result["planted"].values() for form in FORMS for of in each[form].values()]
    short = [
        each["byte-equal"][length] for each in result["planted"].values() for length in list(LENGTHS)[:2]
    ]
    math = result["flagged"]["math"]
    return [
        Claim("byte-equal copies of problems under 13 words found = all", _share(short), ">=", 1),
        Claim("copies found, whatever their form = all", _share(copies), ">=", 1),
        Claim(
            "rows of MATH train that merely end as problems do flagged = 0", math[OURS]["templates"], "<=", 0
        ),
        Claim(
            "rows of MATH train flagged < those that share an 8-gram",
            math[OURS]["flagged"],
            "<",
            math["8-gram"]["flagged"],
        ),
    ]


def _share(counts: Sequence[Mapping[str, int]]) -> float | None:
    wanted = sum(each["planted"] for each in counts)
    return sum(each[OURS] for each in counts) / wanted if wanted else None


def page(result: Mapping[str, Any]) -> str:
    """The figures as Markdown."""
    rules = [OURS, *(f"{n}-gram" for n in SIZES)]
    of_train = [
        [f"{name}, {result['rows'][name]:,} rows{told}", *(f"{found[rule][key]:,}" for rule in rules)]
        for name, found in result["flagged"].items()
        for key, told in (("flagged", ""), ("templates", ": for an ending alone"))
    ]
    of_copies = [
        [f"{name}, {form}, {length}", f"{counts['planted']:,}", *(f"{counts[rule]:,}" for rule in rules)]
        for name, forms in result["planted"].items()
        for form, lengths in forms.items()
        for length, counts in lengths.items()
    ]
    evidence = [
        [f"{each['rule']}, {each['item']}", f"{each['share']:.2f}", _code(each["evidence"])]
        for each in result["evidence"]
    ]
    alone = ", ".join(f"{count} by {rule}" for rule, count in result["of_math500_alone"].items())
    by_rule = "; ".join(
        f"{name}: {', '.join(f'{count} by {rule}' for rule, count in found.items())}"
        for name, found in result["by_rule"].items()
    )
    sizes = ", ".join(f"{count:,} of {name}" for name, count in result["items"].items())
    return (
        f"# Decontamination\n\nTraining sets against {sizes} items. r1pipe's rules are `curate`'s "
        "defaults; the n-gram sizes beside them flag a row that shares one n-gram of words between white "
        f"space, in lower case, as open-r1 does with 8. {machine_line(result['machine'])}\n\n"
        f"{claims_table(_claims(result))}\n\n"
        f"## Rows of the training sets that are flagged\n\n{table(['', *rules], of_train)}\n\n"
        f"r1pipe's by rule and benchmark: {by_rule}. Against MATH-500 alone, MATH train: {alone}.\n\n"
        f"## Planted copies of test items that are found\n\n{table(['', 'planted', *rules], of_copies)}\n\n"
        f"One core looks through {result['texts_per_second']:,.0f} texts of 8 KB a second.\n\n"
        f"## What r1pipe flags in MATH train\n\nShare is that of the item's 8-grams.\n\n"
        f"{table(['rule, item', 'share', 'evidence'], evidence)}\n"
    )


def _claims(result: Mapping[str, Any]) -> list[Claim]:
    return [Claim(each["claim"], each["value"], each["relation"], each["bound"]) for each in result["claims"]]


def _code(text: str) -> str:
    return "`" + " ".join(text.split()).replace("|", "\\|").replace("`", "'")[:120] + "`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=Path("../shared/data"), help="with the folders math and gsm8k"
    )
    parser.add_argument("--out", type=Path, default=Path("bench/results/decontaminate.json"))
    chosen = parser.parse_args(arguments)
    result = measure(chosen.data)
    held = claims(result)
    result |= {"claims": [claim.as_json for claim in held], "machine": machine()}
    write_result(chosen.out, result, page(result))
    return 0 if all(claim.held for claim in held) else 1


if __name__ == "__main__":
    sys.exit(main())
