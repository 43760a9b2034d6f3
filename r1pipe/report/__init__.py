"""One HTML page for a run: self-contained, a function of the run's files alone. No stage knows it exists."""

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

from markupsafe import Markup

from r1pipe import jsonl
from r1pipe.report.page import make_page
from r1pipe.report.run_files import RunFiles
from r1pipe.text import duration, quantity

__all__ = ["RunFiles", "render_report", "write_report"]


def write_report(run: Path | str) -> Path:
    """Write `report.html` into the run's folder and return its path.

    Raises:
        UsageError: `run` is not the folder of a run.
    """
    opened = RunFiles.open(run)
    path = opened.path / "report.html"
    jsonl.write_text(path, render_report(opened))
    return path


def render_report(run: RunFiles) -> str:
    """The page as text. Everything in it is escaped: completions are a model's words."""
    from jinja2 import Environment, StrictUndefined

    resources = files(__name__)
    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters.update(duration=duration, quantity=quantity, pretty=_pretty)
    template = environment.from_string((resources / "page.html.j2").read_text(encoding="utf-8"))
    style = Markup((resources / "page.css").read_text(encoding="utf-8"))
    return template.render(page=make_page(run), style=style)


def _pretty(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)
