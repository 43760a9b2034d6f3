"""The README.md of a dataset's folder, whose header makes `datasets.load_dataset` open it as it is."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import yaml

from r1pipe import jsonl
from r1pipe.manifest import Manifest

Type = str | dict[str, Any] | None
"""`int64`, `{"list": Type}`, `{"struct": {field: Type}}`, `json` for anything, None while all was null."""

_INT64 = range(-(2**63), 2**63)


@dataclass(frozen=True, slots=True)
class Contents:
    """What a stage knows of the rows that it wrote."""

    rows: int
    digest: str
    """Tells these rows from any others, in 64 hex digits."""
    columns: Mapping[str, Type]
    splits: Mapping[str, str]
    """Of each split what its files are called: `{"train": "part-*.jsonl"}`."""
    licences: Sequence[str] = ()
    """As the hub names them: `mit`, `apache-2.0`."""
    text: str = ""
    """Markdown that comes after what every card says."""


def dataset_card(folder: Path, manifest: Manifest, contents: Contents | None = None) -> str:
    """Return the card of a folder of rows; without `contents` the rows are read.

    By default the library would take every .jsonl of the folder, rejects included, and guess the columns'
    types from the first rows, then fail on a later part where a column that began with nulls or whole numbers
    holds something else. So the header names the files and gives the types over all rows. A column that holds
    different things, such as the gold answers of several tasks, is `json` there. (Where such a column holds
    strings alone in one part, the library reads them as JSON: "12" becomes 12. Our own readers keep them.)

    The library caches what it has read by the folder's name and this header, whatever the folder now holds: a
    digest of the rows as the `description` tells two datasets of one name apart.

    Nothing stands in it that could differ between two makings of the same rows.
    """
    found = contents or _read(folder)
    description = f"sha256 of the rows: {found.digest}"
    files = [{"split": split, "path": path} for split, path in found.splits.items()]
    header = {
        **({"license": list(found.licences)} if found.licences else {}),
        "configs": [{"config_name": "default", "description": description, "data_files": files}],
        "dataset_info": {"features": _fields(found.columns)},
    }
    text = f"---\n{yaml.safe_dump(header, sort_keys=False)}---\n{_text(folder, manifest, found.rows)}"
    return f"{text}\n{found.text}" if found.text else text


def _read(folder: Path) -> Contents:
    count, digest = 0, hashlib.sha256()
    columns: dict[str, Type] = {}
    for row in jsonl.iter_rows(folder):
        count += 1
        digest.update(jsonl.dumps(row) + b"\n")
        add_types(columns, row)
    compressed = any(folder.glob(jsonl.PARTS[1]))
    return Contents(count, digest.hexdigest(), columns, {"train": jsonl.PARTS[compressed]})


def add_types(columns: dict[str, Type], row: Mapping[str, Any]) -> None:
    """Widen the columns' types so that they hold this row too."""
    for name, value in row.items():
        columns[name] = merged(columns.get(name), _type_of(value))


def _text(folder: Path, manifest: Manifest, rows: int) -> str:
    parents = [
        f"- {each.role}: {each.name.partition(' v')[0]} `{each.fingerprint[:8]}`" for each in manifest.parents
    ]
    others = sorted(
        path.name
        for path in folder.iterdir()
        if path.name.endswith((".jsonl", ".jsonl.zst")) and not path.name.startswith(("part-", "validation-"))
    )
    lines = [
        f"# {manifest.stage}",
        "",
        f"{rows:,} rows, made by stage `{manifest.stage}` (`{manifest.verb}`) of r1pipe.",
        f"Fingerprint `{manifest.fingerprint}`, seed {manifest.seed}.",
        "",
        "```python",
        'datasets.load_dataset("path/of/this/folder", split="train")',
        "```",
        "",
        "Made from:",
        "",
        *(parents or ["- nothing else"]),
        *(["", f"Beside the rows, not loaded with them: {', '.join(others)}."] if others else []),
    ]
    return "\n".join(lines) + "\n"


def licences_of(folder: Path) -> list[str]:
    """The licences that the card of a dataset's folder names, none where it has no card or names none."""
    card = folder / "README.md"
    if not card.is_file():
        return []
    head, _, text = card.read_text(encoding="utf-8", errors="replace").partition("---\n")
    try:
        header = None if head.strip() else yaml.safe_load(text.partition("\n---")[0])
    except yaml.YAMLError:
        return []
    licence = header.get("license") if isinstance(header, dict) else None
    return [str(each) for each in (licence if isinstance(licence, list) else [licence]) if each]


# --- Columns' types


def _type_of(value: Any) -> Type:
    match value:
        case None:
            return None
        case bool():
            return "bool"
        case int():
            return "int64" if value in _INT64 else "json"
        case float():
            return "float64"
        case str():
            return "string"
        case list():
            return {"list": reduce(merged, map(_type_of, value), None)}
        case _:  # no key at all makes no struct
            return {"struct": {key: _type_of(each) for key, each in value.items()}} if value else "json"


def merged(one: Type, other: Type) -> Type:
    """Return the type that holds the values of two types."""
    if one is None or one == other:
        return other
    if other is None:
        return one
    if {str(one), str(other)} == {"int64", "float64"}:
        return "float64"
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        if "list" in one:
            return {"list": merged(one["list"], other["list"])}
        # The library gives every row every field; rows with fields of their own stay as they are in a `json`.
        if one["struct"].keys() == other["struct"].keys():
            return {
                "struct": {key: merged(one["struct"][key], other["struct"][key]) for key in one["struct"]}
            }
    return "json"


def _fields(types: Mapping[str, Type]) -> list[dict[str, Any]]:
    """Return the types as the library's cards write them."""
    return [{"name": name, **_feature(each)} for name, each in types.items()]


def _feature(type_: Type) -> dict[str, Any]:
    if isinstance(type_, dict) and "struct" in type_:
        return {"struct": _fields(type_["struct"])}
    if isinstance(type_, dict):
        inner = _feature(type_["list"])
        # Directly inside a list the library's cards leave out the words `dtype` and `struct`.
        return {"list": inner.get("dtype") or inner.get("struct") or inner}
    return {"dtype": type_ or "string"}
