"""The curve of accuracy by number of traces: which students are trained, and what is made of their scores."""

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from bench.distill_curve import (
    BASE,
    CONTROL,
    EPOCHS,
    STEPS,
    Point,
    Source,
    claims,
    order,
    page,
    plot,
    students,
    traces,
)
from r1pipe import jsonl
from r1pipe.recipe import load_recipe
from stages import VERBS


def source(run: Path = Path("run"), seed: int = 0) -> Source:
    return Source(run, load_recipe("tiny-r1", VERBS), seed)


def score(pass_at_1: float, **more: Any) -> dict[str, Any]:
    return {"pass_at_1": pass_at_1, "stderr": 0.02, "problems": 600, "samples": 2400, **more}


def result(seed: int, gain: float) -> dict[str, Any]:
    """Of a run whose student gains so much with each size."""
    by_steps = {count: score(0.4 + gain * i, steps=563) for i, count in enumerate((100, 1000, 3000))}
    by_epochs = {count: score(0.35 + gain * i, steps=i) for i, count in enumerate((100, 1000))}
    by_epochs[3000] = by_steps[3000]
    return {"seed": seed, STEPS: by_steps, EPOCHS: by_epochs, CONTROL: score(0.47), BASE: score(0.3)}


def test_the_sets_are_nested_and_random() -> None:
    """All are the beginning of one order, which the seed decides and which loses no trace."""
    rows = [{"id": number} for number in range(50)]
    first, other = order(rows, 0), order(rows, 1)
    assert sorted(row["id"] for row in first) == list(range(50))
    assert first != rows and first != other and first == order(rows, 0)


def test_the_same_epochs_and_the_same_steps() -> None:
    """With 3 epochs of 3,000 rows as the measure, 100 rows take 90; the largest set is trained once."""
    section = source().section("student")
    assert section["uses"] == "distill" and section["epochs"] == 3
    made = {name: (way, each) for name, way, _, each in students(section, "base", {100: "a", 3000: "b"})}
    assert {name: (way, each["epochs"], each["data"]) for name, (way, each) in made.items()} == {
        "steps-100": (STEPS, 90, "a"),
        "epochs-100": (EPOCHS, 3, "a"),
        "steps-3000": (STEPS, 3, "b"),
    }
    assert {each["model"] for _, each in made.values()} == {"base"}


def test_students_are_asked_as_the_recipe_asks_its_own() -> None:
    """The held-out problems alone, with the template and the length of the recipe's stage."""
    section = source().scores()
    assert section["uses"] == "evaluate" and section["template"] == "chat"
    assert list(section["sets"]) == ["held-out"]
    assert (section["sets"]["held-out"]["problems"], section["sets"]["held-out"]["samples"]) == (600, 4)


def test_a_run_with_too_few_traces_is_asked_for_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of its own stage, with as many prompts as that takes and a tenth; never fewer rows in silence."""
    run, work = tmp_path / "run", tmp_path / "work"
    jsonl.write_shards(run / "artifacts" / "traces" / "v001-1f3a9c2e", [{"id": n} for n in range(10)])
    (run / "artifacts" / "reasoner" / "v001-2f3a9c2e").mkdir(parents=True)
    assert len(traces(source(run), 10, work)) == 10
    asked: list[dict[str, Any]] = []

    def sample(stages: dict[str, Any], folder: Path, seed: int) -> None:
        asked.append(stages["traces"])
        jsonl.write_shards(folder / "artifacts" / "traces" / "v001-3f3a9c2e", [{"id": n} for n in range(25)])

    monkeypatch.setattr("bench.distill_curve.run_stages", sample)
    assert len(traces(source(run), 20, work)) == 25
    assert asked[0]["prompts"] == 1200 * 20 * 11 / 100
    assert asked[0]["model"].endswith("reasoner/v001-2f3a9c2e")
    with pytest.raises(SystemExit, match="3,960 prompts gave 25 traces, 30 are wanted"):
        traces(source(run), 30, work)


def test_means_over_seeds() -> None:
    """Of 0.4 and 0.6: 0.5, give or take 0.1; one seed has the error of its problems."""
    assert Point.of([score(0.4), score(0.6)]) == Point(0.5, pytest.approx(0.1))  # type: ignore[arg-type]
    assert Point.of([score(0.4)]) == Point(0.4, 0.02)


def test_claims() -> None:
    """Held by three seeds that gain, missed by ones that do not."""
    assert all(claim.held for claim in claims([result(seed, 0.1) for seed in range(3)]))
    missed = [claim.text for claim in claims([result(0, 0.0)]) if not claim.held]
    assert missed == [
        "seeds",
        "student on 3,000 traces >= on 100 + 0.10, in the same steps",
        "student on 3,000 traces >= RL alone + 0.05",
    ]


def test_the_page_and_the_plot_show_every_figure() -> None:
    """A row for each size with both ways, the control beside them; a line for each."""
    runs = [result(0, 0.1), result(1, 0.1)]
    told = page(runs, {"processor": "p", "cores": 2, "memory_gib": 4, "system": "s", "libraries": {}})
    assert "| 100 | 0 | 0.350 ± 0.000 | 563 | 0.400 ± 0.000 |" in told
    assert "| 3,000 | 563 | 0.600 ± 0.000 | 563 | 0.600 ± 0.000 |" in told
    assert "| RL alone | 0.470 ± 0.000 |" in told
    drawn = ElementTree.fromstring(plot(runs))
    assert sum(each.tag.endswith("path") for each in drawn.iter()) == 4
    texts = ["".join(each.itertext()) for each in drawn.iter() if each.tag.endswith("text")]
    assert {STEPS, EPOCHS, CONTROL, BASE, "100", "1k", "3k"} <= set(texts)
