"""Plain values are like frozen dataclasses."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from callyard.utils.frozen import Frozen


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
