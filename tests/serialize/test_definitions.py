"""Which functions are defined once, and when again."""

from __future__ import annotations

import functools
import gc
import itertools
import json
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from echo import Worker
from hypothesis import given, settings
from hypothesis import strategies as st

from callyard.serialize.function_registry import FunctionRegistry

Notebook = Callable[[str], Any]


@pytest.fixture
def functions() -> FunctionRegistry:
    return FunctionRegistry()


@pytest.mark.parametrize("thing", [json.dumps, len, math.sin, dict, json.JSONDecoder, functools.partial])
def test_what_can_be_imported_is_defined_at_once(functions: FunctionRegistry, thing: Any) -> None:
    definition = functions.definition(thing)
    assert definition is not None
    assert definition.names is None
    assert definition.id > 0
    assert pickle.loads(definition.data) is thing
    assert functions.definition(thing) is definition


def test_what_travels_by_value_is_defined_when_it_comes_again(functions: FunctionRegistry) -> None:
    def f() -> int:
        return 1

    assert functions.definition(f) is None
    definition = functions.definition(f)
    assert definition is not None
    assert pickle.loads(definition.data)() == 1
    assert functions.definition(f) is definition


@pytest.mark.parametrize(
    "thing", [[].append, "".join, functools.partial(len), functools.partial, type("Local", (), {})()]
)
def test_other_callables_travel_with_their_arguments(functions: FunctionRegistry, thing: Any) -> None:
    if isinstance(thing, type):
        return
    assert functions.definition(thing) is functions.definition(thing) is None


def test_a_closure_that_may_change_unseen_travels_with_the_arguments(functions: FunctionRegistry) -> None:
    held: list[int] = []

    def f() -> list[int]:
        return held

    assert [functions.definition(f) for _ in range(3)] == [None] * 3


def test_lambdas_in_a_loop_leave_nothing(functions: FunctionRegistry) -> None:
    for i in range(1000):
        assert functions.definition(lambda i=i: i) is None
    assert not functions._entries
    assert len(functions._seen) <= 256


def test_a_definition_dies_with_its_function_and_its_calls(functions: FunctionRegistry) -> None:
    f = eval("lambda: 0", {"__name__": "cells"})
    functions.definition(f)
    definition = functions.definition(f)
    assert definition is not None
    number = definition.id
    del f
    gc.collect()
    assert not functions._entries
    assert not functions.dead  # a call of it is pending
    del definition
    assert list(functions.dead) == [number]


CHANGES = {
    "a number": "X = 2",
    "the same number": "X = 1 + 0",
    "a list in place": "L.append(1)",
    "a helper": "def helper(): return 2",
    "a helper's code": "helper.__code__ = (lambda: 3).__code__",
    "a helper's default": "helper.__defaults__ = (1,)",
    "a helper's attribute": "helper.note = 1",
    "a helper's helper": "Y = 3",
    "a class attribute": "C.k = 2",
    "a method": "C.m = lambda self: 0",
    "a method's default": "C.m.__kwdefaults__ = {'y': 1}",
    "a name that was not there": "missing = 1",
    "a name that hides a builtin": "len = id",
    "a name that is gone": "del Z",
    "a tuple's function": "T[0].__code__ = (lambda: 1).__code__",
    "another": "unused = 1",
    "nothing": "",
}
SCRIPT = """
    X, Y, Z, L = 1, 2, 3, []
    def helper(a=0): return Y
    T = (lambda: 0,)
    class C:
        k = 1
        def m(self, *, x=0): return self.k
        @property
        def p(self): return helper
    def f(): return X, L, helper, C, len, T, missing if X > 5 else 0, Z
"""


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_what_is_reached_gives_another_definition(
    functions: FunctionRegistry, notebook: Notebook, change: str
) -> None:
    n = notebook(SCRIPT)
    functions.definition(n.f)
    before = functions.definition(n.f)
    assert before is not None
    assert functions.definition(n.f) is before
    notebook(CHANGES[change])
    after = functions.definition(n.f)
    assert after is not None
    assert functions.definition(n.f) is after
    assert (after is before) == (change in ("the same number", "another", "nothing"))
    if after is not before:
        number = before.id
        del before
        assert list(functions.dead) == [number]


def test_defined_functions_see_the_globals_of_their_definition(worker: Worker, notebook: Notebook) -> None:
    """The calls need not be run in the order of their submission."""
    n = notebook("X = 1\ndef f(): return X\ndef g(): return X")
    worker.functions.definition(n.f), worker.functions.definition(n.g)
    first = worker.functions.definition(n.f)
    n.X = 2
    second = worker.functions.definition(n.g)
    for definition in (first, second):
        worker.define(definition)
    assert first is not None
    assert second is not None
    assert [worker.call_defined(d.id) for d in (first, second, first, second)] == [1, 2, 1, 2]


def test_what_an_initializer_stored_outlives_definitions(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        MODEL, X = None, 0
        def load():
            global MODEL
            MODEL = object()
        def f(): return MODEL is not None, X
    """)
    worker.call(n.load)
    for n.X in range(3):
        assert worker.defined(n.f) == (True, n.X)
    n.MODEL = None
    assert worker.defined(n.f) == (True, 2)  # the driver's value is what it was


def test_a_cached_function_keeps_its_cache(worker: Worker, notebook: Notebook) -> None:
    n = notebook("import functools\n@functools.lru_cache\ndef f(x): return object.__hash__(object()), x")
    assert worker.defined(n.f, 1) == worker.defined(n.f, 1) == worker.call(n.f, 1)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_a_definition_is_as_good_as_a_new_one(data: st.DataObject) -> None:
    """After any assignments, the definition that is kept has what the function reaches now."""
    functions = FunctionRegistry()
    space: dict[str, Any] = {"__name__": "cells", "a": 1, "b": (1,), "c": [1]}
    exec("def f(): return a, b, g()\ndef g(): return c", space)
    f = space["f"]
    functions.definition(f)
    for _ in itertools.repeat(None, 4):
        name = data.draw(st.sampled_from("abc"))
        value = data.draw(st.sampled_from([1, 1.0, True, (1,), (1.0,), [1], [2], None, "x"]))
        space[name] = value
        definition, other = functions.definition(f), FunctionRegistry()
        other.definition(f)
        fresh = other.definition(f)
        assert definition is not None
        assert fresh is not None
        assert definition.names == fresh.names
        assert definition.data == fresh.data
