"""JSON by the C part of the standard library's module is what that makes and reads."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.utils import lite_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda values: st.lists(values) | st.dictionaries(st.text(), values),
)


@given(VALUES)
def test_it_is_the_same(value: Any) -> None:
    assert lite_json.dumps(value) == json.dumps(value)
    assert lite_json.lenient(value) == json.dumps(value)
    assert lite_json.compact(value) == json.dumps(value, separators=(",", ":"))
    assert lite_json.loads(json.dumps(value)) == value
    assert lite_json.loads(json.dumps(value, indent=2).encode() + b"\n") == value


def test_what_json_has_no_words_for() -> None:
    assert lite_json.lenient({"path": Path("x"), "tuple": (1, 2)}) == f'{{"path": "{Path("x")!r}", "tuple": [1, 2]}}'
    for write in (lite_json.dumps, lite_json.compact):
        with pytest.raises(TypeError, match="nothing for a set"):
            write({1})
    assert math.isnan(lite_json.loads(lite_json.dumps(math.nan)))
    assert lite_json.loads(lite_json.dumps([math.inf, -math.inf])) == [math.inf, -math.inf]


@pytest.mark.parametrize("text", ["", " ", "{", '{"a": }', "[1,]", "nul", "1 2", '"open', b"\xff", '{"a": 1}x'])
def test_what_is_not_json(text: str | bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        lite_json.loads(text)


def test_where_the_part_in_c_is_another_the_module_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "_json", None)
    with pytest.raises(ImportError):
        lite_json._by_c()
    scan, writer = lite_json._by_module()
    assert scan('{"a": [1, 2.5, "x"]}', 0) == ({"a": [1, 2.5, "x"]}, 20)
    assert writer(repr, ",", ":")({"a": {1}}) == '{"a":"{1}"}'
