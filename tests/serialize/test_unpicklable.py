"""Which part of a value is named when it cannot be pickled."""

from __future__ import annotations

import threading
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.serialize.function_registry import dumps
from callyard.serialize.unpicklable import culprit, described


class Held:
    __slots__ = ("inside", "other")

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def method(self) -> None: ...


class Refusing:
    def __init__(self) -> None:
        self.inside = LOCK

    def __reduce__(self) -> Any:
        raise TypeError("it stays here")


class Rebuilt(Held):
    __slots__ = ()

    def __reduce__(self) -> Any:
        return Rebuilt, (self.inside,)


LOCK = threading.Lock()


def fails(value: Any) -> bool:
    try:
        dumps(value)
    except Exception:
        return True
    return False


@pytest.mark.parametrize(
    ("value", "path"),
    [
        (LOCK, "it"),
        ([1, (LOCK,)], "it[1][0]"),
        ({"a": {2: LOCK}}, "it['a'][2]"),
        ({LOCK}, "an element of it"),
        (Held(Held(LOCK)), "it.inside.inside"),
        (Held([LOCK]).method, "self.inside[0]"),
        (partial(print, 1, end=LOCK), "it.keywords['end']"),
        (Rebuilt([LOCK]), "it.inside[0]"),
        (threading.Event(), "it._cond._lock"),
    ],
)
def test_the_expression_that_leads_to_it(value: Any, path: str) -> None:
    assert culprit(value, "it", fails) == (path, LOCK if not isinstance(value, threading.Event) else value._cond._lock)


def test_what_refuses_by_itself_is_named_not_what_it_holds() -> None:
    refusing = Refusing()
    assert culprit([refusing], "it", fails) == ("it[0]", refusing)


def test_parts_of_a_function() -> None:
    def closing(held: Any) -> Any:
        return lambda: held

    def keyword(*, only: Any = [LOCK]) -> None: ...  # noqa: B006

    def positional(first: Any, second: Any = LOCK) -> None: ...

    assert culprit(closing([LOCK]), "f", fails)[0] == "held[0]"
    assert culprit(keyword, "f", fails)[0] == "the default of only[0]"
    assert culprit(positional, "f", fails)[0] == "the default of second"


def test_words_for_it() -> None:
    assert described(LOCK) == described(threading.RLock()) == "a lock"
    assert described(iter(())) == "a tuple_iterator"
    assert described(Held(1)) == f"a {__name__}.Held"
    assert described(OSError()) == "an OSError"


steps = st.sampled_from([lambda x: [0, x], lambda x: {"k": x}, lambda x: (x, 1), Held])


@given(path=st.lists(steps, max_size=6))
def test_it_is_found_wherever_it_is(path: list[Any]) -> None:
    """The expression, evaluated, is the lock."""
    value: Any = LOCK
    for step in path:
        value = step(value)
    expression, part = culprit(value, "value", fails)
    assert part is LOCK
    assert eval(expression, {"value": value}) is LOCK
