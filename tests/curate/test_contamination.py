"""What of a benchmark stands in a text: three rules, templates, and benchmark files that do not fit."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1pipe.curate.contamination import LONG, SHORT, ContaminationIndex, Hit, Item, read_benchmark
from r1pipe.curate.words import read
from r1pipe.errors import UsageError

TEN = "alpha beta gamma delta epsilon zeta eta theta iota kappa"
TWENTY = f"{TEN} la mu nu xi omicron pi rho sigma tau upsilon"
ITEMS = [
    Item("short", "sum", "What is $2 + 3$?"),
    Item("short", "ten", TEN),
    Item("long", "twenty", TWENTY),
]


def _found(text: str, *items: Item, lines: bool = False, **options: object) -> list[tuple[str, str, str]]:
    index = ContaminationIndex(items or ITEMS, **options)  # type: ignore[arg-type]
    return [(hit.rule, hit.benchmark, hit.item) for hit in index.find(read(text), lines)]


def _numbers(first: int, end: int) -> str:
    return " ".join(f"{number}" for number in range(first, end))


@pytest.mark.parametrize(
    ("text", "hits"),
    [
        ("What is 2+3", [("exact", "short", "sum")]),
        ("What is 2-3", []),
        ("And what is 2+3", []),
        (TEN.upper(), [("exact", "short", "ten")]),
        (f"Say {TEN}.", [("8-gram", "short", "ten")]),
        (f"{TWENTY}?", [("exact", "long", "twenty"), ("8-gram", "short", "ten")]),
        (" ".join(TWENTY.split()[:13]), [("13-gram", "long", "twenty"), ("8-gram", "short", "ten")]),
        (" ".join(TWENTY.split()[7:20]), [("13-gram", "long", "twenty")]),
        (" ".join(TWENTY.split()[8:20]), []),  # 12 words: 5 of its 13 8-grams
        ("omega " + " omega ".join((TWENTY[:47], TWENTY[48:])), []),
        ("", []),
    ],
)
def test_rules(text: str, hits: list[tuple[str, str, str]]):
    """A text is flagged by the first rule that applies, for each item."""
    assert sorted(_found(text)) == sorted(hits)


def test_share_of_8_grams():
    """Half of an item's 8-grams flag it, in whatever pieces they come; fewer do not."""
    item = Item("b", "1", _numbers(100, 127))  # 20 8-grams
    five = [_numbers(at, at + 9) + " x" for at in (100, 103, 106, 109, 112)]  # 9 words are two 8-grams
    assert _found(" ".join(five), item) == [("8-gram", "b", "1")]
    assert _found(" ".join(five[:4]), item) == []
    assert _found(" ".join(five[:4]), item, containment=0.4) == [("8-gram", "b", "1")]
    hit = ContaminationIndex([item]).find(read(" ".join(five)))[0]
    assert (hit.share, hit.evidence) == (0.5, _numbers(100, 109))


def test_evidence():
    """The longest common stretch of the text, as it stands there; of a whole text its beginning and end."""
    index = ContaminationIndex(ITEMS)
    text = f"Well: {TWENTY.title().replace(' Mu', ', Mu')}; {TEN}!"
    hits = {hit.item: hit for hit in index.find(read(text))}
    assert hits["twenty"] == Hit("13-gram", "long", "twenty", text[6 : text.index(";")], 1.0)
    assert hits["ten"].evidence == TEN.title()
    long = Item("b", "1", TWENTY * 30)
    (hit,) = ContaminationIndex([long]).find(read(long.text))
    assert hit.evidence.startswith(TEN) and len(hit.evidence) < 320


def test_lines():
    """A prompt that says more on other lines is found by the line that is the whole item."""
    prompt = "Question:\n\n  what is 2 + 3\nThink step by step."
    assert _found(prompt) == []
    assert _found(prompt, lines=True) == [("exact", "short", "sum")]


def test_templates_count_for_nothing():
    """What more than three items of a benchmark share flags no text; three may share it, or several
    benchmarks."""
    shared = _numbers(1, 15)
    four = [Item("b", name, f"{shared} {name} {name}a {name}b {name}c {name}d {name}e") for name in "wxyz"]
    assert _found(shared, *four) == []
    assert len(_found(shared, *four[:3])) == 3
    assert len(_found(shared, *four[:3], Item("c", "v", f"{shared} v"))) == 4
    assert len(_found(shared, *four, template_items=4)) == 4
    # What has an item's own words in it is no template.
    assert _found(f"{shared} w wa wb wc wd", *four) == [("13-gram", "b", "w")]
    assert _found(" ".join(four[0].text.split()[8:17]), *four) == []
    assert _found(four[0].text, *four) == [("exact", "b", "w")]


def test_13_words_of_templates_alone():
    """13 words in few items that are made of 8-grams in many are a template too."""
    one = Item("b", "0", _numbers(1, 14))
    parts = [
        Item("b", f"{at}{name}", f"{_numbers(at, at + 8)} {name}") for at in range(1, 7) for name in "xyz"
    ]
    assert _found(f"say {one.text}", one, *parts[3:]) == [("13-gram", "b", "0")]
    assert _found(f"say {one.text}", one, *parts) == []
    assert _found(one.text, one, *parts) == [("exact", "b", "0")]


def test_copies_in_a_benchmark_make_no_template():
    """An item that a benchmark has five times is one item; the same item in two benchmarks is in both."""
    items = [Item("b", str(number), TWENTY) for number in range(5)] + [Item("c", "7", f"{TWENTY}!")]
    assert _found(f"say {TWENTY}", *items) == [("13-gram", "b", "0"), ("13-gram", "c", "7")]
    assert _found(TWENTY, *items) == [("exact", "b", "0"), ("exact", "c", "7")]
    assert ContaminationIndex(items).sizes == {"b": 1, "c": 1}


def test_allowed():
    """An n-gram needs to be an item's own by more than half; a phrase of fewer than three words is
    refused."""
    words = TWENTY.split()
    assert _found(f"say {TEN}", allowed=[TEN]) == []
    assert _found(f"say {TWENTY}", allowed=[TEN, " ".join(words[10:])]) == []
    assert _found(TEN, allowed=[TEN]) == [("exact", "short", "ten")]
    text, item = " ".join(words[:13]), ITEMS[2]
    assert _found(text, item, allowed=[" ".join(words[:6])]) == [("13-gram", "long", "twenty")]
    assert _found(text, item, allowed=[" ".join(words[:7])]) == []
    assert _found(text, item, allowed=[" ".join(words[:4]), " ".join(words[2:7])]) == []
    assert _found(text, item, allowed=[f"omega {' '.join(words[:7])}"]) == [("13-gram", "long", "twenty")]
    # Of ten words half are allowed: one 8-gram is left, and it alone has to be there.
    ten = Item("b", "1", TEN)
    assert _found(f"say {' '.join(words[2:10])}", ten, allowed=[" ".join(words[:5])]) == [
        ("8-gram", "b", "1")
    ]
    assert _found(f"say {' '.join(words[:9])}", ten, allowed=[" ".join(words[:5])]) == []
    with pytest.raises(UsageError, match=r"'of course' has 2 of the 3 words"):
        ContaminationIndex(ITEMS, allowed=["of course"])


def test_phrases_of_competitions():
    """Problems that merely end as problems do are not flagged, though a benchmark ends so once."""
    ends = r"is $\frac{m}{n}$, where $m$ and $n$ are relatively prime positive integers. Find $m+n$."
    item = Item("b", "1", f"A die shows a six three times in a row with a chance that {ends}")
    other = f"Nine delegates sit down by country; how often {ends}"
    assert _found(other, item) == []
    assert _found(other, item, allowed=()) == [("13-gram", "b", "1")]


def test_what_only_the_exact_rule_can_find():
    """Items too short for an 8-gram, and those that are templates through and through, are counted."""
    index = ContaminationIndex([*ITEMS, Item("short", "x", "Solve $x = 1$.")])
    assert index.sizes == {"short": 3, "long": 1}
    assert index.exact_only == {"short": 2}
    assert ContaminationIndex([]).find(read(TWENTY)) == []


WORDS = st.lists(st.sampled_from("abcdef"), max_size=40)


@settings(max_examples=200)
@given(st.lists(WORDS, min_size=1, max_size=5), WORDS, st.data())
def test_against_sets_of_tuples(items: list[list[str]], around: list[str], data: st.DataObject):
    """The index says what sets of tuples of words say."""
    copied = data.draw(st.sampled_from(items))
    cut = data.draw(st.slices(len(copied)).filter(lambda each: (each.step or 1) == 1)) if copied else slice(0)
    text = [*around[: len(around) // 2], *copied[cut], *around[len(around) // 2 :]]
    distinct = list(dict.fromkeys(map(tuple, items)))
    found = _found(
        " ".join(text), *(Item("b", str(n), " ".join(one)) for n, one in enumerate(items)), allowed=()
    )
    assert {item: rule for rule, _, item in found} == {
        str(items.index(list(one))): rule for one in distinct if (rule := _plain(one, tuple(text), distinct))
    }


def _grams(words: tuple[str, ...], n: int) -> set[tuple[str, ...]]:
    return {words[at : at + n] for at in range(len(words) - n + 1)}


def _plain(item: tuple[str, ...], text: tuple[str, ...], items: list[tuple[str, ...]]) -> str | None:
    own = {
        n: {gram for gram in _grams(item, n) if sum(gram in _grams(o, n) for o in items) <= 3}
        for n in (8, 13)
    }
    long = {gram for gram in own[13] if _grams(gram, 8) & own[8]}
    if item == text:
        return "exact"
    if long & _grams(text, LONG):
        return "13-gram"
    common = own[8] & _grams(text, SHORT)
    return "8-gram" if common and len(common) / len(own[8]) >= 0.5 else None


# --- Files


def _file(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows))
    return path


def test_read_benchmark(tmp_path: Path):
    """Usual columns are found, others named; several make one text; an item is called by its id or its
    line."""
    path = _file(tmp_path / "bench.v2.jsonl", {"id": 7, "question": "one"}, {"id": 8, "question": "two"})
    assert read_benchmark(path) == [Item("bench", "7", "one"), Item("bench", "8", "two")]
    path = _file(tmp_path / "b.jsonl", {"Body": "a", "Question": "b", "key": "k"})
    assert read_benchmark(path, "svamp", ["Body", "Question"]) == [Item("svamp", "line 1", "a\nb")]
    assert read_benchmark(path, columns=["Body"], id_column="key") == [Item("b", "k", "a")]
    zipped = tmp_path / "z.jsonl.gz"
    zipped.write_bytes(gzip.compress(b'{"task_id": "t/0", "prompt": "def f"}\n'))
    assert read_benchmark(zipped) == [Item("z", "t/0", "def f")]


@pytest.mark.parametrize(
    ("rows", "options", "said"),
    [
        (
            [{"input": "a", "gold": 1}],
            {},
            r"none of the columns problem, .*it has: input, gold\. Name the one",
        ),
        ([{"input": "a"}], {"columns": ["problem"]}, r"no text in 'problem' at line 1; the row has: input\."),
        ([{"text": "a"}, {"text": 3}], {}, r"no text in 'text' at line 2; the row has: text"),
        ([{"text": "a"}, {"text": "  "}], {}, r"no text in 'text' at line 2"),
        ([{"text": "a"}], {"id_column": "key"}, r"no text in 'key' at line 1; the row has: text"),
        ([{"text": "a"}, '{"text": "b'], {}, r"cannot be read: .*:2: not JSON .*Correct or remove"),
        ([["a"]], {}, r":1: a JSON list, not an object"),
        ([], {}, r"is empty"),
    ],
)
def test_files_that_do_not_fit(tmp_path: Path, rows: list[object], options: dict[str, object], said: str):
    """A benchmark is read whole or refused, with the columns it has."""
    with pytest.raises(UsageError, match=said):
        read_benchmark(_file(tmp_path / "bench.jsonl", *rows), **options)  # type: ignore[arg-type]


def test_a_benchmark_that_is_not_there(tmp_path: Path):
    """As any data file."""
    with pytest.raises(UsageError, match="no data file"):
        read_benchmark(tmp_path / "no.jsonl")
