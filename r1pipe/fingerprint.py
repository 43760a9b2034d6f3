"""What makes two results the same: a hash of everything that can change them."""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any

JSON = Any
"""None, bool, int, a finite float, str, a list or tuple of these, or a dict of these under str keys."""


def canonical_json(obj: JSON) -> bytes:
    """Return the one JSON text of a value: keys sorted, floats by their shortest exact form, ASCII only.

    Raises `TypeError` on anything without a stable form: an object, a set, a NaN, a key that is no str.
    A permissive `str(obj)` would put an address in memory into the hash and make every run a new one.
    """
    _check(obj, "value")
    return json.dumps(obj, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _check(obj: JSON, where: str) -> None:
    if obj is None or isinstance(obj, bool | int | str):
        return
    if isinstance(obj, float):
        if not math.isfinite(obj):
            raise TypeError(f"{where}: {obj!r} has no JSON form")
    elif isinstance(obj, list | tuple):
        for index, each in enumerate(obj):
            _check(each, f"{where}.{index}")
    elif isinstance(obj, dict):
        for key, each in obj.items():
            if not isinstance(key, str):
                raise TypeError(f"{where}: the key {key!r} is no str")
            _check(each, f"{where}.{key}")
    else:
        raise TypeError(f"{where}: a {type(obj).__name__} has no stable JSON form")


def flatten(config: Mapping[str, JSON]) -> dict[str, JSON]:
    """Return nested mappings as one level of dotted keys: `{"a": {"b": 1}}` becomes `{"a.b": 1}`.

    A list that holds mappings is numbered (`tasks.0.name`); any other list, and everything empty, is a value.
    Raises `TypeError` when two values claim one dotted key.
    """
    flat: dict[str, JSON] = {}
    _flatten(config, "", flat)
    return flat


def _flatten(value: JSON, prefix: str, flat: dict[str, JSON]) -> None:
    if isinstance(value, list | tuple) and any(isinstance(each, Mapping) for each in value):
        value = {str(index): each for index, each in enumerate(value)}
    if isinstance(value, Mapping) and (value or not prefix):
        for key, each in value.items():
            _flatten(each, f"{prefix}.{key}" if prefix else str(key), flat)
    elif prefix in flat:
        raise TypeError(f"two values are named {prefix!r}")
    else:
        flat[prefix] = dict(value) if isinstance(value, Mapping) else value


def fingerprint_of(
    verb: str,
    version: int,
    config_flat: Mapping[str, JSON],
    parents: Iterable[tuple[str, str]],
    seed: int,
) -> str:
    """Return the fingerprint (64 hex digits) of what a stage would make.

    `version` is the stage module's `VERSION`, `parents` are (role, fingerprint). The order of parents of one
    role counts, as data is read in that order; the order of roles does not.
    """
    return sha256_of(
        {
            "verb": verb,
            "version": version,
            "config": dict(config_flat),
            "parents": [list(parent) for parent in sorted(parents, key=lambda parent: parent[0])],
            "seed": seed,
        }
    )


def sha256_of(obj: JSON) -> str:
    """Return the SHA-256 of a value's canonical JSON, as 64 hex digits."""
    return hashlib.sha256(canonical_json(obj)).hexdigest()
