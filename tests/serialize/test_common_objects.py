"""An object that a call reaches in several ways is one object in the worker."""

from __future__ import annotations

import pickle
import sys
import textwrap
import types
from collections.abc import Callable
from typing import Any

import pytest
from echo import Worker
from hypothesis import given, note, settings
from hypothesis import strategies as st

from callyard.serialize.function_registry import FunctionRegistry, dumps
from callyard.serialize.packer import Packer
from callyard.serialize.shared_memory import SegmentPool

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
        if kind == "method":
            return Box().method
        return {"list": list, "dict": dict, "set": set, "box": Box, "marker": object}[kind]()

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


@settings(max_examples=40, deadline=None)
@given(call=calls())
def test_what_is_one_object_here_is_one_there(shared: Worker, call: Any) -> None:
    function, args, kwargs = call
    expected = function(*args, **kwargs)
    for _ in range(2):
        assert shared.call(_apply, function, args, kwargs) == expected


@settings(max_examples=40, deadline=None)
@given(call=calls())
def test_what_is_one_object_here_is_one_there_if_the_function_is_called_by_its_number(
    shared: Worker, call: Any
) -> None:
    function, args, kwargs = call
    expected = function(*args, **kwargs)
    packer = Packer(SegmentPool())
    for _ in range(3):
        definition = shared.functions.definition(function)
        packed = None if definition is None else packer.pack_arguments(args, kwargs, [], definition)
        if packed is None:
            assert shared.call(_apply, function, args, kwargs) == expected
        else:
            assert definition is not None
            assert packed.data is not None
            shared.define(definition)
            assert shared.apply_defined(definition.id, packed.data) == expected


def _apply(function: Any, args: Any, kwargs: Any) -> Any:
    return function(*args, **kwargs)


# -- patterns of scripts -----------------------------------------------------------------------------------

PATTERNS = {
    "the marker of a default": """
        MISSING = object()
        def look_up(table, key, default=MISSING):
            return "none" if default is MISSING else default
        def call(): return look_up({}, "a")
    """,
    "an instance as marker": """
        class Missing: pass
        MISSING = Missing()
        def look_up(key, *, default=MISSING): return default is MISSING
        def call(): return look_up("a")
    """,
    "what a model is made from": """
        class Settings: step = 1.0
        class Model:
            def __init__(self, settings): self.settings = settings
        settings = Settings()
        model = Model(settings)
        def call():
            settings.step = 2.0
            return model.settings.step
    """,
    "parameters and their optimizer": """
        class Net:
            def __init__(self): self.weights = [[1.0], [2.0]]
        class Optimizer:
            def __init__(self, parameters): self.groups = [{"params": list(parameters)}]
            def step(self):
                for parameter in self.groups[0]["params"]: parameter[0] += 1
        net = Net()
        optimizer = Optimizer(net.weights)
        def call():
            optimizer.step()
            return net.weights
    """,
    "a circle": """
        class Figure:
            def __init__(self): self.axes = []
        class Axes:
            def __init__(self, figure):
                self.figure = figure
                figure.axes.append(self)
        figure = Figure()
        axes = Axes(figure)
        def call(): return axes.figure is figure, figure.axes[0] is axes
    """,
    "a bound method": """
        class Counter:
            n = 0
            def increase(self): self.n += 1
            @classmethod
            def make(cls): return cls()
        counter = Counter()
        increase, make, plain = counter.increase, Counter.make, Counter.increase
        def call():
            increase()
            return counter.n, make().n, increase.__self__ is counter, plain is Counter.increase
    """,
    "a bound method of a container": """
        seen = []
        note = seen.append
        def call():
            note(1)
            return seen
    """,
    "closures over one dictionary": """
        def make():
            state = {}
            def put(key): state[key] = 1
            def get(): return dict(state)
            return put, get
        put, get = make()
        def call():
            put("a")
            return get()
    """,
    "closures over one variable": """
        def make():
            n = 0
            def put():
                nonlocal n
                n += 1
            return put, lambda: n
        put, get = make()
        def call():
            put()
            return get()
    """,
    "an alias": """
        totals = []
        results = totals
        def call():
            totals.append(1)
            return results
    """,
    "the registry of a class": """
        REGISTRY = {}
        class Plugin:
            registry = REGISTRY
            def __init_subclass__(cls): cls.registry[cls.__name__] = cls
        class First(Plugin): pass
        def call():
            class Second(Plugin): pass
            return list(REGISTRY), Plugin.registry is REGISTRY, REGISTRY["First"] is First
    """,
    "a default of a dataclass": """
        import dataclasses
        UNSET, NAMES = object(), ("a", [])
        @dataclasses.dataclass
        class Options:
            limit: object = UNSET
            names: tuple = dataclasses.field(default_factory=lambda: NAMES)
        def call(): return Options().limit is UNSET, Options().names is NAMES
    """,
    "wrappers of functools": """
        import functools
        state = {"n": 1}
        def add(table, key): table[key] = 1
        put = functools.partial(add, state)
        @functools.lru_cache
        def cached(table=id(state)): return state
        look = cached
        def call():
            put("m")
            return state, cached() is state, look is cached, put.args[0] is state
    """,
    "an array and its owner": """
        import numpy as np
        field = np.zeros(3)
        class Mesh:
            def __init__(self, field): self.field = field
        mesh = Mesh(field)
        def call():
            field[0] = 1
            return mesh.field.tolist(), mesh.field is field
    """,
    "keys of a dictionary": """
        class Node: pass
        node = Node()
        costs = {node: 1}
        def call(): return costs[node]
    """,
    "something that holds itself": """
        tree = {"name": "root"}
        tree["self"] = tree
        child = {"parent": tree}
        def call(): return tree["self"] is tree, child["parent"] is tree
    """,
    "a list of functions": """
        HANDLERS = []
        def register(function):
            HANDLERS.append(function)
            return function
        @register
        def first(default=HANDLERS): return default
        def call(): return HANDLERS[0] is first, first() is HANDLERS
    """,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns(shared: Worker, notebook: Notebook, pattern: str) -> None:
    n = notebook(PATTERNS[pattern])
    there = shared.defined(n.call)
    assert there == n.call()


def test_modules_that_share_an_object(shared: Worker, notebook: Notebook, monkeypatch: pytest.MonkeyPatch) -> None:
    other = types.ModuleType("other_by_hand")
    exec("SEEN = []\ndef note(x): SEEN.append(x)", vars(other))
    monkeypatch.setitem(sys.modules, other.__name__, other)
    n = notebook("""
        from other_by_hand import SEEN, note
        def call():
            note(1)
            return SEEN
    """)
    assert shared.call(n.call) == [1]


# -- changes -----------------------------------------------------------------------------------------------


def test_what_shares_an_object_is_sent_again_when_that_changes(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        part, other = [1], [1]
        one, two = {"part": part}, {"part": part}
        def look(): return one["part"] is two["part"], one["part"]
        def change(): one["part"].append(2)
    """)
    assert worker.defined(n.look) == (True, [1])
    worker.defined(n.change)
    assert worker.defined(n.look) == (True, [1, 2])
    n.part.append(3)
    assert worker.defined(n.look) == (True, [1, 3])
    n.one["part"] = n.other
    assert worker.defined(n.look) == (False, [1])
    n.two["part"] = n.other
    assert worker.defined(n.look) == (True, [1])


def test_sharing_that_begins_and_ends_later(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        totals, results = [[]], [[]]
        def call(): return results is totals, results[0] is totals[0]
    """)
    assert worker.defined(n.call) == (False, False)
    n.results[0] = n.totals[0]
    assert worker.defined(n.call) == (False, True)
    n.results = n.totals
    assert worker.defined(n.call) == (True, True)
    n.results = [[]]
    assert worker.defined(n.call) == (False, False)


def test_a_marker_that_takes_the_place_of_another(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        MISSING, values = object(), [object()]
        def call(): return values[0] is MISSING
    """)
    assert worker.defined(n.call) is worker.defined(n.call) is False
    n.values[0] = n.MISSING
    assert worker.defined(n.call) is True


def test_what_an_initializer_did_with_a_part_is_seen_by_the_calls(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        class App:
            def __init__(self, tables): self.tables = tables
        tables = {}
        app, alias = App(tables), tables
        def load(): tables["a"] = 1
        def use(): return app.tables, alias
        def both(): return app.tables is tables, tables
    """)
    worker.call(n.load)
    assert worker.call(n.use) == ({"a": 1}, {"a": 1})
    assert worker.defined(n.both) == (True, {"a": 1})


# -- arguments ---------------------------------------------------------------------------------------------


def test_an_argument_is_what_it_was_at_the_submission_and_so_are_globals_that_share_it(
    worker: Worker, notebook: Notebook
) -> None:
    n = notebook("""
        params = [0]
        model = {"params": params}
        def step(p):
            p[0] += 1
            return p is params, model["params"] is params, list(params)
        def train():
            params[0] += 10
            return list(model["params"])
    """)
    assert worker.call(n.train) == [10]
    for _ in range(2):
        assert worker.call(n.step, n.params) == (True, True, [1])
    assert worker.call(n.train) == [20]  # what calls without that argument have left, is there for such
    n.params[0] = 5
    assert worker.call(n.step, n.params) == (True, True, [6])
    assert worker.call(n.train) == [15]


def test_a_name_that_was_given_another_value_there_keeps_it(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        MODEL = {}
        def load():
            global MODEL
            MODEL = "loaded"
        def use(model): return MODEL, model
        def look(): return MODEL
    """)
    worker.call(n.load)
    assert worker.call(n.use, n.MODEL) == ("loaded", {})
    assert worker.call(n.look) == "loaded"


def test_markers_among_arguments(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        MISSING = object()
        seen = []
        def call(x, *more, default=MISSING):
            seen.append(x)
            return [x is MISSING, default is MISSING, x is seen[0], *(m is MISSING for m in more)]
    """)
    for _ in range(2):
        assert worker.call(n.call, n.MISSING, [], n.MISSING) == [True, True, True, False, True]


def test_the_arguments_that_were_sent_can_be_read_here_without_a_change(notebook: Notebook) -> None:
    n = notebook("params = [0]\ndef step(p, q=params): params.append(p)")
    data = dumps((n.step, (n.params,)))
    n.params.append(1)
    _, (argument,) = pickle.loads(data)
    assert argument == [0]
    assert n.params == [0, 1]
    assert pickle.loads(dumps(n.step)) is n.step
    assert n.step.__defaults__[0] is n.params


def test_arguments_that_share_nothing_leave_the_function_behind(notebook: Notebook) -> None:
    n = notebook("params = [[0]]\ndef step(p): return params")
    functions, packer = FunctionRegistry(), Packer(SegmentPool())
    functions.definition(n.step)
    for arguments, apart in ((([0],), True), ((n.params[0],), False), (([n.params],), False)):
        definition = functions.definition(n.step)
        assert definition is not None
        assert (packer.pack_arguments(arguments, {}, [], definition) is not None) == apart
