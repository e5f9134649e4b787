"""An object that a call reaches in several ways is one object in the worker."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from typing import Any

import pytest
from echo import Worker
from hypothesis import given, note, settings
from hypothesis import strategies as st

from penstock.wire.functions import Functions

Notebook = Callable[[str], Any]

# -- the law -----------------------------------------------------------------------------------------------

SCRIPT = textwrap.dedent("""
    import types

    class Box:
        def method(self): pass

    class Holder:
        pass

    def new(kind):
        if kind == "function":
            def function(): return first, second
            first = second = None
            return function
        if kind == "counter":
            count = 0
            def increase():
                nonlocal count
                count += 1
            def look(): return count
            return [increase, look]
        if kind == "class":
            class Local: pass
            return Local
        return {"list": list, "dict": dict, "set": set, "box": Box, "marker": object, "method": lambda: Box().method}[kind]()

    def put(thing, number, other):
        "Let something refer to something else, if it can."
        if type(thing) is list: thing.append(other)
        elif type(thing) is dict: thing[number] = other
        elif type(thing) is set: thing.add(id(other))
        elif type(thing) is Box or isinstance(thing, type): setattr(thing, f"x{number}", other)
        elif isinstance(thing, types.FunctionType) and thing.__closure__:
            thing.__closure__[number % len(thing.__closure__)].cell_contents = other

    def parts(thing):
        if type(thing) in (list, tuple): return list(thing)
        if type(thing) is dict: return list(thing.values())
        if type(thing) is Box: return [value for _, value in sorted(vars(thing).items())] + [type(thing)]
        if isinstance(thing, types.FunctionType): return [*(thing.__closure__ or ()), *(thing.__defaults__ or ())]
        if isinstance(thing, types.MethodType): return [thing.__self__, thing.__func__]
        if isinstance(thing, types.CellType): return [thing.cell_contents]
        if isinstance(thing, type): return [v for k, v in sorted(vars(thing).items()) if k[0] in "xm" or k == "held"]
        return []

    def classes(*roots):
        "Which of all that the roots lead to is the same object: for each step the number of the object it comes to."
        numbers, found, todo = {}, [], [list(roots)]
        alive = []
        while todo:
            for part in parts(todo.pop()):
                alive.append(part)
                new = id(part) not in numbers
                found.append(numbers.setdefault(id(part), len(numbers)))
                if new and type(part) not in (int, str): todo.append(part)
        return found

    def helper(default=None): return default

    def make(held):
        def call(*args, default=None, **kwargs):
            return classes(args, kwargs, default, held, a, b, c, Holder, helper)
        return call
""")
KINDS = ("list", "dict", "set", "box", "marker", "function", "counter", "class", "method")
WAYS = ("a", "b", "c", "default", "closure", "attribute", "helper", "argument", "another", "keyword")


@st.composite
def calls(draw: st.DrawFn) -> tuple[Any, tuple[Any, ...], dict[str, Any]]:
    """A function of a module that nobody can import, with arguments; objects lead to each other in any way."""
    space: dict[str, Any] = {"__name__": "cells"}
    exec(SCRIPT, space)
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=5))
    things = [space["new"](kind) for kind in kinds]
    numbers = st.integers(0, len(things) - 1)
    lead = draw(st.lists(st.tuples(numbers, numbers), max_size=6))
    for number, (one, other) in enumerate(lead):
        space["put"](things[one], number, things[other])
    chosen = draw(st.dictionaries(st.sampled_from(WAYS), numbers))
    note(f"{kinds=} {lead=} {chosen=}")
    ways = {way: things[chosen[way]] if way in chosen else None for way in WAYS}
    space.update({name: ways[name] for name in "abc"})
    space["Holder"].held = ways["attribute"]
    space["helper"].__defaults__ = (ways["helper"],)
    space["call"] = call = space["make"](ways["closure"])
    call.__kwdefaults__ = {"default": ways["default"]}
    if draw(st.booleans()):
        call.__qualname__ = "call"  # as if it were defined at the top: it is sent by its name
    return call, (ways["argument"], ways["another"]), {"keyword": ways["keyword"]}


@settings(max_examples=300, deadline=None)
@given(call=calls())
def test_what_is_one_object_here_is_one_there(shared: Worker, call: Any) -> None:
    function, args, kwargs = call
    expected = function(*args, **kwargs)
    for _ in range(2):
        assert shared.call(_apply, function, args, kwargs) == expected


def _apply(function: Any, args: Any, kwargs: Any) -> Any:
    return function(*args, **kwargs)
