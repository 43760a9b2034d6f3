"""The report: self-contained, complete, and safe to open."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from r1pipe.report import write_report
from tests.fake_run import write_run


class Balance(HTMLParser):
    """Fails on a tag that is closed out of order; keeps the text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag != "meta":
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> tuple[str, str]:
    """The page's source and its text."""
    source = path.read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(source)
    assert parser.open == []
    return source, parser.text


def test_the_page_stands_alone(finished_run: Path) -> None:
    """It loads nothing: no script, no link, no picture, no address."""
    source, _ = read(write_report(finished_run))
    assert not re.search(r"<script|<link|<img|<iframe|https?://|@import|url\(", source)


def test_everything_that_is_asked_of_it_is_there(finished_run: Path) -> None:
    """Scores with interval and sample size, curves, the tree with times, answers, manifests."""
    source, text = read(write_report(finished_run))
    for expected in (
        "0.750 ± 0.020",
        "600 × 4",
        "3m 12s",
        "rl · 3m 12s · 1.54M tok",
        "nums 5 6 3 to 34",
        "wrong value",
        "22222222",
        "torch 2.13.0",
        "r1pipe run tiny",
    ):
        assert expected in text, expected
    assert source.count('class="chart"') >= 4 and source.count('class="tree"') == 1


def test_the_memory_of_a_stage_is_shown_where_it_was_written_down(finished_run: Path) -> None:
    """A manifest from before it was written down is read as any other."""
    source, _ = read(write_report(finished_run))
    assert source.count('<td class="num">438MB</td>') == 6
    (path,) = finished_run.glob("artifacts/r1/*/manifest.json")
    manifest = json.loads(path.read_text())
    del manifest["cost"]["peak_rss_bytes"]
    path.write_text(json.dumps(manifest))
    source, _ = read(write_report(finished_run))
    assert source.count('<td class="num">438MB</td>') == 5
    assert source.count('<td class="num">–</td>') == 1


def test_a_models_words_are_no_markup(finished_run: Path) -> None:
    """A completion may hold any tag; it is shown, not obeyed."""
    source, text = read(write_report(finished_run))
    assert "<b>zero</b>" not in source and "<b>zero</b>" in text


@pytest.mark.parametrize("unfinished", [("scores",), ("base", "zero", "cold-data", "sft", "r1", "scores")])
def test_an_unfinished_run_has_a_report(tmp_path: Path, unfinished: tuple[str, ...]) -> None:
    """What is not there is left out; the tree shows what waits."""
    _, text = read(write_report(write_run(tmp_path / "run", unfinished=unfinished)))
    assert f"{6 - len(unfinished)} of 6" in text and "Scores" not in text


def test_the_same_files_give_the_same_page(finished_run: Path) -> None:
    """The page is a function of the files: no clock, no host, no order of a set."""
    first = write_report(finished_run).read_bytes()
    assert write_report(finished_run).read_bytes() == first
