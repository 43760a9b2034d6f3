"""Fingerprints: the same for the same work anywhere, another for any other work."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1pipe.fingerprint import canonical_json, fingerprint_of, flatten

SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
)
VALUES = st.recursive(
    SCALARS, lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(), each, max_size=4)
)


@given(VALUES)
def test_canonical_json_loses_nothing_and_is_stable(value: Any) -> None:
    """Read back it is the value, bit for bit and type for type, and writes the same bytes again."""
    text = canonical_json(value)
    again = json.loads(text)
    assert repr(again) == repr(_sorted(value))
    assert canonical_json(again) == text


@given(st.dictionaries(st.text(), SCALARS, min_size=2))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    """A dict built in reverse has the same text."""
    assert canonical_json(dict(reversed(value.items()))) == canonical_json(value)


def test_canonical_json_exact() -> None:
    """The very bytes: they are in every fingerprint ever recorded and must never change."""
    value = {"b": [1, 1.0, True, None, 1e-6, 0.1], "a": {"é": "\n"}, "c": (2,)}
    assert canonical_json(value) == b'{"a":{"\\u00e9":"\\n"},"b":[1,1.0,true,null,1e-06,0.1],"c":[2]}'


@pytest.mark.parametrize(
    "value", [object(), {1}, b"x", float("nan"), float("-inf"), {1: 2}, {"a": [{"b": print}]}]
)
def test_canonical_json_refuses_what_has_no_stable_form(value: object) -> None:
    """An object's repr holds its address: a fingerprint of it would never match again."""
    with pytest.raises(TypeError):
        canonical_json(value)


def test_canonical_json_names_the_place() -> None:
    """The error leads to the field."""
    with pytest.raises(TypeError, match=r"value\.a\.0\.b: a set has no stable JSON form"):
        canonical_json({"a": [{"b": set()}]})


def test_flatten_exact() -> None:
    """Nested mappings and lists of mappings become dotted keys; what is empty keeps its place."""
    config = {"a": {"b": 1, "c": {}}, "tasks": [{"name": "x"}, "y"], "rewards": [1, 2], "none": None, "e": []}
    assert flatten(config) == {
        "a.b": 1,
        "a.c": {},
        "tasks.0.name": "x",
        "tasks.1": "y",
        "rewards": [1, 2],
        "none": None,
        "e": [],
    }
    assert flatten({}) == {}


def test_flatten_refuses_two_values_under_one_key() -> None:
    """Else one of them would silently not count."""
    with pytest.raises(TypeError, match=r"'a\.b'"):
        flatten({"a": {"b": 1}, "a.b": 2})


BASE: dict[str, Any] = {
    "verb": "sft",
    "version": 1,
    "config_flat": {"lr": 1e-4},
    "parents": [("model", "m"), ("data", "d1"), ("data", "d2")],
    "seed": 0,
}


def test_fingerprint_exact() -> None:
    """The very hash: a change here makes every finished run stale."""
    assert fingerprint_of(**BASE) == "3700830b23e60fbc1bb72e0f1dd92286423ceb4c201317c0963ed77b9f082756"


@pytest.mark.parametrize(
    "change",
    [
        {"verb": "rl"},
        {"version": 2},
        {"config_flat": {"lr": 2e-4}},
        {"config_flat": {"lr": 1e-4, "x": None}},
        {"seed": 1},
        {"parents": [("model", "m"), ("data", "d2"), ("data", "d1")]},
        {"parents": [("model", "m"), ("data", "d1")]},
        {"parents": [("reference", "m"), ("data", "d1"), ("data", "d2")]},
    ],
)
def test_fingerprint_changes_with_everything_that_counts(change: dict[str, Any]) -> None:
    """The order of data within a role counts too."""
    assert fingerprint_of(**(BASE | change)) != fingerprint_of(**BASE)


def test_fingerprint_does_not_depend_on_the_order_of_roles() -> None:
    """Moving a field in a config class reruns nothing."""
    parents = [("data", "d1"), ("model", "m"), ("data", "d2")]
    assert fingerprint_of(**(BASE | {"parents": parents})) == fingerprint_of(**BASE)


def _sorted(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value
