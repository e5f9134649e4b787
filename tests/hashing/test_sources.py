"""The texts of functions that go with a key."""

from __future__ import annotations

import random

from callyard.hashing.call_key import function_part
from callyard.hashing.digest import ATOMS, combine, readable
from callyard.hashing.sources import pack, source_of, unpack


def helper(x):
    return x + 1  # a comment


class Tool:
    def use(self, x):
        return helper(x)


def work(x):
    return Tool().use(x)


def test_the_texts_of_what_a_function_reaches() -> None:
    texts = dict(function_part(work).sources)
    assert texts == {
        f"code of {__name__}.work": source_of(work),
        f"code of {__name__}.Tool.use": "def use(self, x):\n    return helper(x)\n",
        f"code of {__name__}.helper": "def helper(x):\n    return x + 1  # a comment\n",
    }
    assert function_part(work).for_key().sources == ()
    assert source_of(len) == source_of(eval("lambda: 1")) == ""


def test_packed_texts_are_small() -> None:
    assert unpack(pack((("a", "text"), ("b", "own"), ("c", "")), "own")) == {"a": "text"}
    assert pack((("b", "own"),), "own") == ""
    numbers = random.Random(1)
    texts = tuple((str(i), "".join(chr(numbers.randrange(32, 127)) for _ in range(1000))) for i in range(20))
    packed = pack(texts)
    assert 1000 < len(packed) <= 3072
    found = unpack(packed)
    assert list(found) == [str(i) for i in range(len(found))]
    assert pack((("a", texts[0][1] * 4 + texts[1][1] * 4 + texts[2][1] + texts[3][1] + texts[4][1]),)) == ""


def test_damaged_texts_are_none() -> None:
    packed = pack((("a", "text"),))
    for damaged in ("", "é", "YQ==", packed[:8], pack((("a", "x"),)).swapcase()):
        assert unpack(damaged) == {}


def test_what_a_token_says() -> None:
    for value in (None, True, False, 0, -12, 2.5, float("inf"), "text", ""):
        assert readable(ATOMS[type(value)](value)) == repr(value)
    for value in ("x" * 40, 1 << 70, b"bytes", 1j):
        assert readable(ATOMS[type(value)](value)) == ""
    assert readable(combine(b"F", [b"x"])) == readable(b"") == ""
