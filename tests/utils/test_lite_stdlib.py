"""The light stand-ins do what the standard library does: JSON, and immutable values as frozen dataclasses."""

from __future__ import annotations

import copy
import json
import math
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.utils.lite_stdlib import (
    Frozen,
    _json_by_c,
    _json_by_module,
    json_compact,
    json_dumps,
    json_lenient,
    json_loads,
)

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@given(VALUES)
def test_it_is_the_same(value: Any) -> None:
    assert json_dumps(value) == json.dumps(value)
    assert json_lenient(value) == json.dumps(value)
    assert json_compact(value) == json.dumps(value, separators=(",", ":"))
    assert json_loads(json.dumps(value)) == value
    assert json_loads(json.dumps(value, indent=2).encode() + b"\n") == value


def test_what_json_has_no_words_for() -> None:
    assert json_lenient({"path": Path("x"), "tuple": (1, 2)}) == f'{{"path": "{Path("x")!r}", "tuple": [1, 2]}}'
    for write in (json_dumps, json_compact):
        with pytest.raises(TypeError, match="nothing for a set"):
            write({1})
    assert math.isnan(json_loads(json_dumps(math.nan)))
    assert json_loads(json_dumps([math.inf, -math.inf])) == [math.inf, -math.inf]


@pytest.mark.parametrize("text", ["", " ", "{", '{"a": }', "[1,]", "nul", "1 2", '"open', b"\xff", '{"a": 1}x'])
def test_what_is_not_json(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        json_loads(text)


def test_where_the_part_in_c_is_another_the_module_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_json", None)
    with pytest.raises(ImportError):
        _json_by_c()
    scan, writer = _json_by_module()
    assert scan('{"a": [1, 2.5, "x"]}', 0) == ({"a": [1, 2.5, "x"]}, 20)
    assert writer(repr, ",", ":")({"a": {1}}) == '{"a":"{1}"}'


class Point(Frozen):
    x: int
    y: int = 0


class Named(Point):
    name: str = "origin"
    _hidden: str = "secret"


def test_fields_and_defaults() -> None:
    assert Named.fields == ("x", "y", "name", "_hidden")
    point = Named(1, name="a")
    assert (point.x, point.y, point.name, point._hidden) == (1, 0, "a", "secret")
    assert repr(point) == "Named(x=1, y=0, name='a')"
    assert vars(Point(y=2, x=1)) == {"x": 1, "y": 2}


@pytest.mark.parametrize(
    ("args", "named"), [((), {}), ((1, 2, 3), {}), ((1,), {"x": 1}), ((1,), {"z": 1}), ((), {"y": 1})], ids=str
)
def test_what_does_not_fit(args: tuple[Any, ...], named: dict[str, Any]) -> None:
    with pytest.raises(TypeError, match="Point has the fields x, y, each of them once"):
        Point(*args, **named)


def test_they_do_not_change() -> None:
    point = Point(1)
    with pytest.raises(AttributeError, match="Point is not changed"):
        point.x = 2  # type: ignore[misc]
    assert point.replace(y=5) == Point(1, 5)
    assert point == Point(1)
    with pytest.raises(TypeError):
        point.replace(z=1)


def test_equality_counts_the_class() -> None:
    assert Point(1) == Point(1, 0)
    assert Point(1) != Point(2)
    assert Named(1).replace() == Named(1)
    assert Point(1) != Named(1)
    assert len({Point(1), Point(x=1), Point(y=0, x=1), Point(2)}) == 2


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda point: pickle.loads(pickle.dumps(point))])
def test_copies_are_equal(again: Any) -> None:
    assert again(Named(1, 2)) == Named(1, 2)
