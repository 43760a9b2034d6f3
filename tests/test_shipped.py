"""Shipped recipes are found by name, in a wheel and in a checkout."""

from pathlib import Path

import pytest

from r1pipe import shipped
from r1pipe.errors import UsageError


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package folder as an installer leaves it, with nothing in it."""
    folder = tmp_path / "site-packages" / "r1pipe"
    folder.mkdir(parents=True)
    monkeypatch.setattr(shipped, "_PACKAGE", folder)
    return folder


def write(folder: Path, name: str, text: str = "name: x\n") -> Path:
    """A recipe's file."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.yaml"
    path.write_text(text)
    return path


def test_in_a_checkout_they_lie_beside_the_package(package: Path) -> None:
    """Where people look for them."""
    path = write(package.parent / "recipes", "smoke")
    assert shipped.recipe_names() == ["smoke"] and shipped.recipe_path("smoke") == path


def test_in_a_wheel_they_lie_inside_the_package(package: Path) -> None:
    """A folder `recipes` that some other package left beside ours does not count."""
    write(package.parent / "recipes", "foreign")
    path = write(package / "recipes", "smoke")
    assert shipped.recipe_names() == ["smoke"] and shipped.recipe_path("smoke") == path


def test_an_unknown_name_lists_those_there_are(package: Path) -> None:
    """The message ends in the way out."""
    write(package / "recipes", "smoke")
    write(package / "recipes", "tiny-r1")
    with pytest.raises(UsageError, match=r"'tiny'; did you mean 'tiny-r1'\? There are: smoke, tiny-r1\."):
        shipped.recipe_path("tiny")


def test_a_name_is_no_path(package: Path) -> None:
    """A name cannot lead out of the folder."""
    write(package, "secret")
    write(package / "recipes", "smoke")
    with pytest.raises(UsageError):
        shipped.recipe_path("../secret")


def test_the_header_is_the_opening_comment(tmp_path: Path) -> None:
    """Without the line for editors, up to the first line that is no comment."""
    path = write(
        tmp_path,
        "x",
        "# yaml-language-server: $schema=x\n# The whole tree.\n#\n# 20 minutes\nname: x\n# no\n",
    )
    assert shipped.recipe_header(path) == ["The whole tree.", "20 minutes"]


def test_this_checkout_ships_its_recipes() -> None:
    """`make all` and `make smoke` name these two."""
    assert {"smoke", "tiny-r1"} <= set(shipped.recipe_names())
