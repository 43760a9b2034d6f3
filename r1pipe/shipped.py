"""The recipes that come with r1pipe, found by name.

In an installed wheel they lie inside the package, in a checkout (an editable install included) at its top.
"""

from pathlib import Path

from r1pipe.errors import UsageError
from r1pipe.hints import meant

_PACKAGE = Path(__file__).resolve().parent


def recipes_dir() -> Path:
    """The folder that holds the shipped recipes."""
    inside = _PACKAGE / "recipes"
    return inside if inside.is_dir() else _PACKAGE.parent / "recipes"


def recipe_names() -> list[str]:
    """Names of the shipped recipes, sorted; each is what `r1pipe run NAME` takes."""
    return sorted(path.stem for path in recipes_dir().glob("*.yaml"))


def recipe_path(name: str) -> Path:
    """The file of the shipped recipe `name`.

    Raises:
        UsageError: no recipe of that name is shipped; the message lists those that are.
    """
    if name in recipe_names():
        return recipes_dir() / f"{name}.yaml"
    raise UsageError(
        f"There is no shipped recipe {name!r}{meant(name, recipe_names()) or '.'} There are: "
        f"{', '.join(recipe_names()) or 'none'}. "
        "A recipe of your own is named by its path, e.g. ./my-recipe.yaml."
    )


def accelerate_config(name: str) -> Path:
    """The accelerate config of this name, one of `r1pipe.parallel.Parallel`."""
    return recipes_dir() / "accelerate" / f"{name}.yaml"


def recipe_header(path: Path) -> list[str]:
    """The comment lines a recipe opens with, bare of `#`: what it is, the hardware, minutes, score, command.

    Lines for editors (`yaml-language-server`) are left out.
    """
    lines = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            break
        text = line.lstrip("#").strip()
        if text and "yaml-language-server" not in text:
            lines.append(text)
    return lines
