"""The difference of two values, in words."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from callyard.cache.format.encode import Described
from callyard.cache.inspect.value_differences import value_difference


@dataclass
class Structure:
    symbols: str
    positions: Any = None


class Odd:
    def __init__(self) -> None:
        self.part = 1

    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("then", "now", "words"),
    [
        (300.0, 310.0, ": 300.0 -> 310.0"),
        (1, 1.0, ": 1 (int) -> 1.0 (float)"),
        (True, 1, ": True (bool) -> 1 (int)"),
        (float("nan"), float("nan"), ""),
        ("Cu", "Al", ": 'Cu' -> 'Al'"),
        ("Cu", None, ": 'Cu' -> None"),
        ({"cutoff": 500, "k": [1, 2]}, {"cutoff": 500, "k": [1, 3]}, "['k'][1]: 2 -> 3"),
        ({"a": 1}, {"b": 2}, "['a'] is not there any more; it was 1; ['b'] is new: 2"),
        ((1, 2), (1, 2, 3), ": (1, 2) -> (1, 2, 3)"),
        ([1], (1,), ": [1] -> (1,)"),
        ({1, 2}, {1, 3}, ": {1, 2} -> {1, 3}"),
        (Structure("Cu"), Structure("Al"), ".symbols: 'Cu' -> 'Al'"),
        (list(range(9)), list(range(1, 10)), "[0]: 0 -> 1; [1]: 1 -> 2; [2]: 2 -> 3, and more"),
        (Described("a lock"), 1, ""),
        (Odd(), Odd(), ""),
        (object(), object(), ""),
        ("x" * 500, "y" * 500, None),
    ],
)
def test_plain_values(then: object, now: object, words: str | None) -> None:
    found = value_difference(then, now)
    if words is None:
        assert len(found) < 200
    else:
        assert found == words


def test_deep_values_end() -> None:
    then: list = []
    now: list = []
    then.append(then)
    now.append(now)
    assert len(value_difference(then, now)) < 200


def test_numpy() -> None:
    np = pytest.importorskip("numpy")
    zeros, changed = np.zeros((4, 3)), np.zeros((4, 3))
    changed[2, 1], changed[3, 0] = 1, 7
    array = "array float64 (4, 3)"
    of_two = "array float64 (2,), 1 of 2 elements differs: the first"
    for then, now, words in [
        (np.float64(300), np.float64(310), "300.0 -> 310.0"),
        (np.float64(1), 1.0, "1.0 (float64) -> 1.0 (float)"),
        (np.int64(3), np.int32(3), "3 (int64) -> 3 (int32)"),
        (zeros, changed, f"{array}, 2 of 12 elements differ: the first [2, 1] 0.0 -> 1.0, the largest difference is 7"),
        (zeros, zeros[:2], f"{array} -> array float64 (2, 3)"),
        (zeros, zeros.astype("f4"), f"{array} -> array float32 (4, 3)"),
        (np.array(3.0), np.array(4.0), "array float64 (), 1 of 1 elements differs: the first 3.0 -> 4.0"),
        (np.array([np.nan, 1]), np.array([np.nan, 2]), f"{of_two} [1] 1.0 -> 2.0"),
        (np.array(["a", "b"]), np.array(["a", "c"]), "array <U1 (2,), 1 of 2 elements differs: the first [1] b -> c"),
        (np.arange(3), "x", "array int64 (3,) -> 'x'"),
    ]:
        assert value_difference(then, now) == f": {words}"
    assert value_difference(np.array([1, 2], "u1"), np.array([2, 0], "u1")).endswith("the largest difference is 2")
    inside = value_difference(Structure("Cu", zeros), Structure("Cu", zeros + 1))
    assert inside.startswith(f".positions: {array}, 12 of 12 elements differ")
    assert value_difference(zeros, zeros.copy()) == ""
