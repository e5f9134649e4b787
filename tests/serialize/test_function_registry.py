"""How functions and classes travel to a worker and back."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib.util
import io
import json
import linecache
import math
import os
import pickle
import subprocess
import sys
import textwrap
import types
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
from echo import RemoteError, Worker
from hypothesis import given, settings
from hypothesis import strategies as st

from callyard.serialize import definition_identity, module_namespace
from callyard.serialize.function_registry import Pickler, dumps
from callyard.serialize.importable import by_reference, importable

Notebook = Callable[[str], Any]

# -- by reference or by value ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "thing",
    [json.dumps, math.sin, len, dict, Path, os.path.join, np.ndarray, np.mean, json.JSONDecoder.decode],
)
def test_what_a_worker_can_import_travels_by_reference(thing: Any) -> None:
    assert len(dumps(thing)) < 80
    assert pickle.loads(dumps(thing)) is thing


def test_lambdas_and_what_a_function_makes_do_not() -> None:
    def inner() -> None:
        pass

    for thing in (lambda: 0, inner, type("Made", (), {})):
        assert not by_reference(thing)


def test_a_module_loaded_from_a_file_under_a_name_of_its_own(
    worker: Worker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "loaded.py"
    file.write_text("LIMIT = 3\ndef f(x): return x + LIMIT, __file__, __name__")
    module = _load("loaded_by_hand", file)
    monkeypatch.setitem(sys.modules, "loaded_by_hand", module)
    assert not importable("loaded_by_hand")
    assert worker.call(module.f, 1) == (4, str(file), "loaded_by_hand")


def test_a_module_of_another_file_than_the_one_that_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for directory in ("a", "b"):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "twice.py").write_text("def f(): pass")
    monkeypatch.syspath_prepend(str(tmp_path / "a"))
    module = _load("twice", tmp_path / "b" / "twice.py")
    monkeypatch.setitem(sys.modules, "twice", module)
    assert not by_reference(module.f)
    monkeypatch.syspath_prepend(str(tmp_path / "b"))
    assert by_reference(module.f)


def test_a_module_that_was_replaced_or_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "passing.py").write_text("def f(): return 5")
    monkeypatch.syspath_prepend(str(tmp_path))
    import passing  # type: ignore[import-not-found]

    f = passing.f
    assert by_reference(f)
    del sys.modules["passing"]
    assert not by_reference(f)
    monkeypatch.setitem(sys.modules, "passing", types.ModuleType("passing"))
    assert not by_reference(f)


def test_modules_registered_with_cloudpickle_travel_by_value(worker: Worker, tmp_path: Path) -> None:
    assert by_reference(json.dumps)
    cloudpickle.register_pickle_by_value(json)
    try:
        assert not by_reference(json.dumps)
        assert not by_reference(json.JSONDecoder)
    finally:
        cloudpickle.unregister_pickle_by_value(json)
    assert by_reference(json.dumps)


def test_finders_that_a_worker_has_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "afar.py").write_text("def f(): pass")

    class Finder:
        @staticmethod
        def find_spec(name: str, path: Any, target: Any = None) -> Any:
            return importlib.util.spec_from_file_location(name, tmp_path / "afar.py") if name == "afar" else None

    monkeypatch.setattr(sys, "meta_path", [*sys.meta_path, Finder])
    for module, found in (("some.hook", False), ("__editable___afar_finder", True)):
        monkeypatch.setattr(Finder, "__module__", module)
        monkeypatch.setitem(sys.modules, "afar", _load("afar", tmp_path / "afar.py"))
        assert importable("afar") == found


def test_modules_that_their_package_makes_come_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "json.made", types.ModuleType("json.made"))
    monkeypatch.setitem(sys.modules, "made", types.ModuleType("made"))
    assert importable("json.made")
    assert importable("os.path")
    assert not importable("made")
    assert not importable("__main__")


def test_a_local_function_of_an_imported_module_uses_that_module(worker: Worker) -> None:
    wrapped = functools.singledispatch(abs)
    assert worker.call(lambda f: f.__globals__ is vars(functools), wrapped)


def _load(name: str, file: Path) -> types.ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- one namespace -----------------------------------------------------------------------------------------


def test_what_an_initializer_stores_is_seen_and_stays(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        MODEL, LIMIT = None, 1

        def load():
            global MODEL
            MODEL = "loaded"

        def use():
            return MODEL, LIMIT
    """)
    worker.call(load_ := n.load)
    assert worker.call(n.use) == ("loaded", 1)
    assert worker.call(n.use) == ("loaded", 1)
    n.LIMIT = 2
    assert worker.call(n.use) == ("loaded", 2)
    n.MODEL = "of the driver"
    assert worker.call(n.use) == ("of the driver", 2)
    assert n.load is load_


def test_an_initializer_may_define_what_is_not_there(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        def load():
            global MODEL
            MODEL = [1]

        def use():
            return MODEL
    """)
    worker.call(n.load)
    assert worker.call(n.use) == [1]
    assert "MODEL" not in vars(n)


def test_a_global_that_is_deleted_here_is_deleted_there(worker: Worker, notebook: Notebook) -> None:
    n = notebook("X = 1\ndef f(): return X")
    assert worker.call(n.f) == 1
    del n.X
    with pytest.raises(RemoteError, match="NameError"):
        worker.call(n.f)
    n.X = 2
    assert worker.call(n.f) == 2


def test_mutable_globals_are_looked_at_again(worker: Worker, notebook: Notebook) -> None:
    n = notebook("""
        import numpy as np
        NAMES, TABLE = ["a"], np.zeros(2)
        def f(): return NAMES, TABLE.sum()
    """)
    assert worker.call(n.f) == (["a"], 0)
    n.NAMES.append("b")
    n.TABLE[0] = 1
    assert worker.call(n.f) == (["a", "b"], 1)


def test_what_calls_change_in_place_stays_until_the_driver_changes_it(worker: Worker, notebook: Notebook) -> None:
    n = notebook("SEEN = []\ndef f(x):\n    SEEN.append(x)\n    return list(SEEN)")
    assert worker.call(n.f, 1) == [1]
    assert worker.call(n.f, 2) == [1, 2]
    n.SEEN.append(0)
    assert worker.call(n.f, 3) == [0, 3]


def test_a_helper_that_is_defined_again_is_sent_again(worker: Worker, notebook: Notebook) -> None:
    n = notebook("def helper(): return 1\ndef f(): return helper()")
    assert worker.call(n.f) == 1
    notebook("def helper(): return 2")
    assert worker.call(n.f) == 2
    n.helper.__code__ = (lambda: 3).__code__
    assert worker.call(n.f) == 3


def test_functions_that_refer_to_each_other(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        def even(n): return n == 0 or odd(n - 1)
        def odd(n): return n != 0 and even(n - 1)
        def factorial(n): return 1 if n == 0 else n * factorial(n - 1)
    """)
    assert shared.call(n.even, 10) is True
    assert shared.call(n.odd, 10) is False
    assert shared.call(n.factorial, 5) == 120


def test_two_namespaces_of_one_name_stay_apart(shared: Worker) -> None:
    spaces: list[dict[str, Any]] = [{"__name__": "same", "X": x} for x in (1, 2)]
    for space in spaces:
        exec("def f(): return X", space)
    f, g = (space["f"] for space in spaces)
    assert [shared.call(f), shared.call(g), shared.call(f)] == [1, 2, 1]


def test_relative_imports_and_names_of_the_module(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        __package__ = "json"
        __file__ = "/nowhere/n.py"
        def f():
            from . import decoder
            return decoder.__name__, __file__, __name__, __builtins__ is not None
    """)
    assert shared.call(n.f) == ("json.decoder", "/nowhere/n.py", n.__name__, True)


def test_submodules_that_the_code_uses_are_imported(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        import xml.dom.minidom
        def f(): return xml.dom.minidom.__name__
        def inside():
            import email.mime.text
            return lambda: email.mime.text.__name__
    """)
    assert shared.call(n.f) == "xml.dom.minidom"
    assert shared.call(n.inside()) == "email.mime.text"


def test_a_module_that_cannot_be_imported_is_sent_as_far_as_it_is_used(
    shared: Worker, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    helpers = types.ModuleType("helpers_by_hand")
    exec("import threading\nlock = threading.Lock()\nK = 4\ndef scale(x): return K * x", vars(helpers))
    monkeypatch.setitem(sys.modules, helpers.__name__, helpers)
    n = notebook("import helpers_by_hand as h\ndef f(x): return h.scale(x), h.__name__")
    assert shared.call(n.f, 3) == (12, "helpers_by_hand")
    helpers.K = 5  # type: ignore[attr-defined]
    assert shared.call(n.f, 3) == (15, "helpers_by_hand")
    assert shared.call(lambda: h_back(n)) is None


def h_back(n: Any) -> None:
    """Take a module as an argument."""
    assert isinstance(n, types.ModuleType)


def test_a_module_comes_back_as_itself(shared: Worker, notebook: Notebook) -> None:
    n = notebook("X = 1\ndef f(): return X")
    assert shared.call(lambda module: module, n) is n
    assert shared.call(lambda module: (module.f(), module.X), n) == (1, 1)


# -- functions ---------------------------------------------------------------------------------------------


def test_a_function_keeps_its_attributes(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        def f(a, /, b=2, *, c=3, **d) -> "int":
            "What it does."
            return a, b, c, d
        f.note = ["x"]
        f.__defaults__ = (7,)
    """)

    def look(f: Any) -> Any:
        return f(1, z=0), f.__doc__, f.note, f.__qualname__, f.__module__, f.__annotations__, f.__kwdefaults__

    expected = ((1, 7, 3, {"z": 0}), "What it does.", ["x"], "f", n.__name__, {"return": "int"}, {"c": 3})
    assert shared.call(look, n.f) == expected


def test_closures(shared: Worker) -> None:
    def make() -> tuple[Callable[[], int], Callable[[], int], Callable[[int], int]]:
        count = 0

        def increase() -> int:
            nonlocal count
            count += 1
            return count

        def factorial(n: int) -> int:
            return 1 if n == 0 else n * factorial(n - 1)

        return increase, lambda: count, factorial

    def use(three: Any) -> Any:
        increase, look, factorial = three
        return increase(), increase(), look(), factorial(5)

    assert shared.call(use, make()) == (1, 2, 2, 120)


def test_an_empty_cell(shared: Worker) -> None:
    def make() -> Any:
        def f() -> Any:
            return later

        if False:
            later = 1
        return f

    with pytest.raises(RemoteError, match="free variable"):
        shared.call(make())


def test_generators_and_coroutines(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        K = 3
        def count():
            yield from range(K)
        async def later():
            return K
    """)
    assert shared.call(lambda f: list(f()), n.count) == [0, 1, 2]
    assert shared.call(lambda f: asyncio.run(f()), n.later) == 3


def test_wrappers_of_functools(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        import functools
        calls = []
        def counted(f):
            @functools.wraps(f)
            def wrapper(*args):
                return "counted", f(*args)
            return wrapper
        @counted
        def add(a, b): return a + b
        @functools.lru_cache(maxsize=7)
        def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
        class Thing: pass
        @functools.singledispatch
        def kind(x): return "other"
        @kind.register
        def _(x: int): return "int"
        @kind.register(Thing)
        def _(x): return "thing"
    """)
    assert shared.call(n.add, 1, 2) == ("counted", 3)
    assert shared.call(lambda f: (f.__wrapped__(1, 2), f.__name__), n.add) == (3, "add")
    assert shared.call(n.fib, 50) == 12586269025
    assert shared.call(lambda f: (f.cache_info()[1:], f.__name__), n.fib)[1] == "fib"
    assert shared.call(lambda f: f.cache_parameters(), n.fib) == {"maxsize": 7, "typed": False}
    assert shared.call(lambda f, t: [f(1), f("s"), f(t)], n.kind, n.Thing()) == ["int", "other", "thing"]
    assert shared.call(functools.partial(n.add, 1), 2) == ("counted", 3)


def test_what_was_sent_comes_back_as_itself(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        import functools
        def f(): return f
        @functools.lru_cache
        def cached(): return cached
        class C:
            class Inner: pass
    """)
    assert shared.call(n.f) is n.f
    assert shared.call(n.cached) is n.cached
    assert shared.call(lambda c: [c, c.Inner], n.C) == [n.C, n.C.Inner]


def test_a_function_made_there_has_the_globals_of_the_driver(shared: Worker, notebook: Notebook) -> None:
    n = notebook("X = 1\ndef make(k): return lambda: (X, k)")
    made = shared.call(n.make, 2)
    n.X = 5
    assert made() == (5, 2)
    assert made.__globals__ is vars(n)


def test_typing_constructs_of_a_script(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        import typing
        T = typing.TypeVar("T")
        P = typing.ParamSpec("P")
        UserId = typing.NewType("UserId", int)
        def f(x: UserId, y: T, g: typing.Callable[P, T]) -> list[T]:
            return [UserId(x), y]
    """)
    assert shared.call(n.f, 1, 2, None) == [1, 2]


@pytest.mark.skipif(sys.version_info < (3, 12), reason="the syntax of Python 3.12")
def test_type_parameters(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        type Pair[T] = tuple[T, T]
        def f[T: int](x: T) -> Pair[T]:
            return x, x
        class Box[T]:
            def __init__(self, x: T): self.x = x
            def get(self) -> T: return self.x
    """)
    assert shared.call(n.f, 1) == (1, 1)
    assert shared.call(lambda f: [p.__name__ for p in f.__type_params__], n.f) == ["T"]
    assert type(shared.call(n.Box, 1)) is n.Box


# -- classes -----------------------------------------------------------------------------------------------

CLASSES = """
    import abc, collections, dataclasses, enum, functools, sys, typing
    UNIT = 10
    REGISTRY = {}

    class Base(abc.ABC):
        kinds = []
        def __init_subclass__(cls, /, kind, **rest):
            super().__init_subclass__(**rest)
            REGISTRY[kind] = cls
            Base.kinds.append(cls)
        @abc.abstractmethod
        def area(self): ...
        def twice(self): return 2 * self.area()

    class Square(Base, kind="square"):
        def __init__(self, a):
            super().__init__()
            self.a = a
        def area(self): return self.a ** 2 * UNIT
        @property
        def side(self): return self.a
        @staticmethod
        def unit(): return UNIT
        @classmethod
        def make(cls, a): return cls(a)
        @functools.cached_property
        def cached(self): return [self.a]
        @functools.lru_cache
        def remembered(self): return __class__.__name__

    @dataclasses.dataclass(order=True)
    class Point:
        x: int
        names: list = dataclasses.field(default_factory=list)
        def moved(self, by): return dataclasses.replace(self, x=self.x + by)

    @dataclasses.dataclass(frozen=True, slots=sys.version_info >= (3, 11))
    class Fixed:
        x: int = 1

    class Slots:
        __slots__ = ("x", "__own", "__weakref__")
        def __init__(self): self.x, self.__own = 1, 2
        def own(self): return self.x, self.__own

    class Color(enum.Enum):
        RED = 1
        BLUE = "b"
        @property
        def low(self): return self.name.lower()

    class Flags(enum.IntFlag):
        A = enum.auto()
        B = enum.auto()

    Pair = collections.namedtuple("Pair", "a b")

    class Typed(typing.NamedTuple):
        a: int
        b: str = "x"

    class Failure(Exception):
        def __init__(self, code):
            super().__init__(f"code {code}")
            self.code = code
        def __reduce__(self):
            return Failure, (self.code,)

    class Meta(type):
        def __call__(cls, *args):
            made = super().__call__(*args)
            made.meta = True
            return made

    class Made(metaclass=Meta):
        pass

    MAKERS = [
        lambda: Square(2), lambda: Point(1), Fixed, Slots, lambda: Color.BLUE, lambda: Flags.A | Flags.B,
        lambda: Pair(1, 2), lambda: Typed(3), lambda: Failure(4), Made,
    ]
"""


@pytest.mark.parametrize("number", range(10))
def test_instances_come_back_as_instances_of_the_very_class(shared: Worker, notebook: Notebook, number: int) -> None:
    n = notebook(CLASSES)
    make = n.MAKERS[number]
    cls = type(make())
    attributes = dict(vars(cls))
    thing = shared.call(make)
    assert type(thing) is cls
    back = shared.call(lambda thing, cls: (thing, type(thing) is cls), thing, cls)
    assert back[1]
    assert type(back[0]) is cls
    assert {name: value for name, value in vars(cls).items() if name != "__slotnames__"} == {
        name: value for name, value in attributes.items() if name != "__slotnames__"
    }
    for name, value in attributes.items():
        if isinstance(value, types.FunctionType):
            assert vars(cls)[name] is value


def test_methods_of_all_kinds(shared: Worker, notebook: Notebook) -> None:
    n = notebook(CLASSES)

    def use(s: Any) -> Any:
        cls = type(s)
        return s.area(), s.twice(), s.side, s.unit(), type(cls.make(1)) is cls, s.cached, s.remembered()

    assert shared.call(use, n.Square(3)) == (90, 180, 3, 10, True, [3], "Square")
    assert shared.call(lambda p: (p.moved(2).x, p == p.moved(0), p < p.moved(1)), n.Point(1)) == (
        3,
        True,
        True,
    )
    assert shared.call(lambda s: (s.own(), hasattr(s, "__dict__")), n.Slots()) == ((1, 2), False)
    assert shared.call(lambda c: (c.low, type(c)["RED"].value, c is type(c)("b")), n.Color.BLUE) == (
        "blue",
        1,
        True,
    )


def test_an_abstract_class_stays_abstract(shared: Worker, notebook: Notebook) -> None:
    n = notebook(CLASSES)
    with pytest.raises(RemoteError, match="abstract"):
        shared.call(n.Base)


def test_a_base_that_registers_its_subclasses_sees_each_once(shared: Worker, notebook: Notebook) -> None:
    n = notebook(CLASSES + "\n    def look(): return list(REGISTRY.items()), Base.kinds, Square")
    registered, kinds, square = shared.call(n.look)
    assert registered == [("square", n.Square)]
    assert kinds == [n.Square]
    assert square is n.Square
    assert n.Base.kinds == [n.Square]

    def subclass(base: Any) -> int:
        type("Third", (base,), {}, kind="third")
        return len(base.kinds)

    assert shared.call(subclass, n.Base) == 2  # there, classes that are made still register


def test_a_local_class(shared: Worker) -> None:
    def make(k: int) -> Any:
        class Local:
            def value(self) -> int:
                return k

            def copy(self) -> Local:
                return Local()

            def text(self) -> str:
                return super().__repr__()

        return Local

    cls = make(3)
    thing = shared.call(lambda c: c().copy(), cls)
    assert type(thing) is cls
    assert shared.call(lambda t: (t.value(), "Local" in t.text()), thing) == (3, True)


def test_a_local_class_that_is_gone_here_comes_back_whole(shared: Worker) -> None:
    def make() -> Any:
        class Local:
            k = 5

            def value(self) -> int:
                return self.k

        return Local

    data = dumps((lambda c: c(), (make(),)))
    assert shared.load(data).value() == 5


def test_a_class_that_is_made_there(shared: Worker, notebook: Notebook) -> None:
    n = notebook("""
        X = 1
        def make():
            class Made:
                def value(self): return X
            return Made()
        def make_global():
            global Global
            class Global:
                def value(self): return X
            return Global()
    """)
    n.X = 2
    assert shared.call(n.make).value() == 2
    thing = shared.call(n.make_global)
    n.X = 3
    assert thing.value() == 3
    assert "Global" not in vars(n)


def test_a_class_that_changes_is_sent_again(worker: Worker, notebook: Notebook) -> None:
    n = notebook("class C:\n    k = 1\n    def f(self): return self.k")
    thing = n.C()
    assert worker.call(lambda c: c.f(), thing) == 1
    n.C.k = 2
    assert worker.call(lambda c: c.f(), thing) == 2
    n.C.f = lambda self: -self.k
    assert worker.call(lambda c: c.f(), thing) == -2


def test_a_class_changed_there_stays_so(worker: Worker, notebook: Notebook) -> None:
    n = notebook("class C:\n    count = 0\ndef f():\n    C.count += 1\n    return C.count")
    assert [worker.call(n.f) for _ in range(3)] == [1, 2, 3]
    assert n.C.count == 0


def test_an_instance_of_a_class_that_was_defined_again(shared: Worker, notebook: Notebook) -> None:
    n = notebook("class C: pass\ndef f(): return C()")
    old = n.C
    data = dumps((n.f, ()))
    notebook("class C: new = True")
    assert type(shared.load(data)) is old
    del old
    n.old = None
    assert type(shared.call(lambda c: c(), n.C)) is n.C


# -- tracebacks --------------------------------------------------------------------------------------------


def test_source_lines_that_no_file_has_travel_along(
    shared: Worker, notebook: Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "def f():\n    raise ValueError('here')  # this very line\n"
    monkeypatch.setitem(linecache.cache, "<a cell>", (len(text), None, text.splitlines(True), "<a cell>"))
    space: dict[str, Any] = {"__name__": "cells"}
    exec(compile(text, "<a cell>", "exec"), space)
    with pytest.raises(RemoteError, match="this very line"):
        shared.call(space["f"])


# -- what cannot be sent -----------------------------------------------------------------------------------


def test_an_error_names_the_global(notebook: Notebook) -> None:
    n = notebook("import threading\nLOCK = threading.Lock()\ndef f(): return LOCK")
    with pytest.raises(TypeError, match=r"it reads the global LOCK, a lock .*'_thread\.lock'.* inside the function"):
        dumps(n.f)


def test_an_error_names_the_part_of_a_global(notebook: Notebook) -> None:
    n = notebook(
        """
        class Model:
            def __init__(self):
                self.tables = {"a": [(x for x in ())]}
        model = Model()
        def outer():
            def inner(): return model
            return inner
        """
    )
    with pytest.raises(TypeError, match=r"the global model, and model\.tables\['a'\]\[0\] is a generator"):
        dumps(n.outer())


def test_a_hook_is_asked_first() -> None:
    class Marked:
        pass

    def reduce(obj: Any) -> Any:
        return (int, ("42",)) if isinstance(obj, Marked) else NotImplemented

    assert pickle.loads(dumps([Marked(), 1], reduce=reduce)) == [42, 1]


def test_buffers_go_out_of_band() -> None:
    buffers: list[pickle.PickleBuffer] = []
    array = np.arange(10)
    data = dumps((lambda: 0, array), buffer_callback=buffers.append)
    assert len(buffers) == 1
    assert (pickle.loads(data, buffers=buffers)[1] == array).all()


# -- what neither pickle nor cloudpickle can send ----------------------------------------------------------


def test_subclasses_of_descriptors(worker: Worker, notebook: Notebook) -> None:
    n = notebook(
        """
        import functools
        class lazy(property):
            def __init__(self, unit, get):
                super().__init__(get)
                self.unit = unit
        class plain(property):
            __slots__ = ("mark",)
        class static(staticmethod):
            def __init__(self, f):
                super().__init__(f)
                self.marked = f.__name__
        class of_class(classmethod): pass
        class cached(functools.cached_property):
            def __init__(self, f):
                super().__init__(f)
                self.marked = 7
        class P:
            v = lazy("eV", lambda self: 1)
            @static
            def w(): return 2
            @of_class
            def c(cls): return cls.__name__
            @cached
            def d(self): return [4]
        def f():
            p = P()
            of = vars(P)
            kinds = [type(of[name]).__name__ for name in "vwcd"]
            return p.v, P.w(), P.c(), p.d is p.d, of["v"].unit, of["w"].marked, of["d"].marked, kinds
        """
    )
    kinds = ["lazy", "static", "of_class", "cached"]
    assert worker.call(n.f) == n.f() == (1, 2, "P", True, "eV", "w", 7, kinds)


def test_globals_that_pickle_does_not_know(worker: Worker, notebook: Notebook) -> None:
    n = notebook(
        """
        import contextvars, struct, threading
        RECORD = struct.Struct("<id")
        UNSET = contextvars.ContextVar("UNSET")
        DEFAULT = contextvars.ContextVar("DEFAULT", default=3)
        SET = contextvars.ContextVar("SET", default=4)
        SET.set(5)
        LOCAL = threading.local()
        LOCAL.depth = 6
        class Own(threading.local):
            unit = "eV"
            def __init__(self, depth): self.depth = depth
        OWN = Own(7)
        def f():
            return RECORD.size, UNSET.get(None), DEFAULT.get(), SET.get(), LOCAL.depth, OWN.depth, OWN.unit
        """
    )
    assert worker.call(n.f) == n.f() == (12, None, 3, 5, 6, 7, "eV")


def test_what_an_import_hook_has_added_to_a_module(worker: Worker) -> None:
    """Pytest rewrites the assertions of this module; a worker imports it without that."""

    def check(value: int) -> int:
        assert value == 1
        return value

    assert worker.call(check, 1) == 1
    with pytest.raises(RemoteError, match="assert 2 == 1"):
        worker.call(check, 2)


# -- laws --------------------------------------------------------------------------------------------------

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(st.text(), inner) | st.frozensets(st.text()),
    max_leaves=5,
)


@settings(max_examples=30, deadline=None)
@given(steps=st.lists(st.tuples(st.sampled_from("abc"), values), max_size=6), data=st.data())
def test_a_call_sees_the_globals_of_the_moment_of_its_submission(
    shared: Worker, steps: list[tuple[str, Any]], data: st.DataObject
) -> None:
    """Whatever is assigned before whichever call, and in whatever order the calls are run."""
    space: dict[str, Any] = {"__name__": "cells", "a": 0, "b": 0, "c": 0}
    exec("def f(): return a, b\ndef g(): return f(), c", space)
    submitted = []
    for name, value in steps:
        space[name] = value
        function = space[data.draw(st.sampled_from("fg"))]
        submitted.append((dumps((function, ())), function()))
    for pickled, expected in data.draw(st.permutations(submitted)):
        assert shared.load(pickled) == expected


@settings(max_examples=50, deadline=None)
@given(value=values)
def test_values_come_back_equal(value: Any) -> None:
    assert pickle.loads(dumps(value)) == value


# -- processes ---------------------------------------------------------------------------------------------


def _run_script(tmp_path: Path, text: str) -> str:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(text))
    path = ":".join([str(Path(__file__).parent), *(path for path in sys.path if path)])
    return subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        env={"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    ).stderr


def test_a_script(tmp_path: Path) -> None:
    errors = _run_script(
        tmp_path,
        """
        from __future__ import annotations
        import dataclasses, pickle
        from echo import Worker

        STATE = None
        @dataclasses.dataclass
        class Point:
            x: int
            def clone(self) -> Point: return Point(self.x)

        def init():
            global STATE
            STATE = 7

        def use(p):
            assert pickle.loads(pickle.dumps(p)) == p  # what is not ours finds the class too
            assert __name__ == "__main__" and __file__.endswith("script.py")
            return STATE, p.clone(), type(p) is Point

        worker = Worker()
        worker.call(init)
        area = Point.clone
        for _ in range(2):
            state, point, same = worker.call(use, Point(3))
            assert (state, type(point), point.x, same) == (7, Point, 3, True)
            assert worker.defined(use, Point(3))[0] == 7
        assert Point.clone is area and area.__globals__ is globals() and STATE is None
        worker.close()
        """,
    )
    assert errors == ""


def test_a_fork_is_another_process(tmp_path: Path) -> None:
    errors = _run_script(
        tmp_path,
        """
        import os, pickle
        from callyard.serialize.function_registry import dumps
        X = [1]
        def f(): return X, __name__
        first = dumps(f)
        r, w = os.pipe()
        X.append(2)
        second = dumps(f)
        if os.fork() == 0:
            results = [pickle.loads(data)() for data in (first, second, first)]
            os.write(w, repr(results).encode())
            os._exit(0)
        os.wait()
        a = ([1], "__main__"), ([1, 2], "__main__"), ([1], "__main__")
        assert eval(os.read(r, 1000)) == list(a)
        assert pickle.loads(first) is f and X == [1, 2]
        """,
    )
    assert errors == ""


def test_a_worker_may_have_workers_of_its_own(worker: Worker, notebook: Notebook) -> None:
    n = notebook(f"""
        import sys
        X = 1
        class C:
            def f(self): return X
        def outer():
            sys.path.append({str(Path(__file__).parent)!r})
            from echo import Worker
            second = Worker()
            global X
            X = 5
            try:
                made = second.call(inner, C())
                return type(made) is C, made.f(), second.call(lambda: X), made
            finally:
                second.close()
        def inner(c):
            assert c.f() == 5
            return C()
    """)
    same, value, seen, made = worker.call(n.outer)
    assert (same, value, seen, type(made)) == (True, 5, 5, n.C)
    assert n.X == 1


def test_nothing_is_kept_of_executed_code_that_is_gone() -> None:
    def send() -> None:
        space: dict[str, Any] = {"__name__": "cells"}
        exec("X = [1]\nclass C:\n    @property\n    def p(self): return X\ndef f(): return C(), f", space)
        for _ in range(3):
            dumps(space["f"])

    def kept() -> tuple[int, ...]:
        gc.collect()  # the functions
        gc.collect()  # what was kept for them
        return len(module_namespace.spaces()), len(module_namespace._held), len(definition_identity._identities)

    before = kept()
    send()
    assert kept() == before


def test_a_dictionary_in_the_place_of_another_is_another_namespace() -> None:
    spaces: list[dict[str, Any]] = [{"__name__": "cells"}, {"__name__": "cells"}]
    for space in spaces:
        exec("def f(): pass", space)
    first = module_namespace.space_of(spaces[0]["f"])
    module_namespace._spaces[id(spaces[1])] = first  # as if its memory had been that of the first
    assert module_namespace.space_of(spaces[1]["f"]) is not first


def test_threads_agree_on_versions(notebook: Notebook) -> None:
    n = notebook("X = [1]\ndef f(): return X")
    with ThreadPoolExecutor(4) as threads:
        picklers = list(threads.map(lambda _: _sent(n.f), range(50)))
    assert len({unit for sent in picklers for unit in sent.values()}) == 2


def _sent(function: Any) -> Any:
    pickler = Pickler(io.BytesIO())
    pickler.dump(function)
    return pickler.sent


def test_a_pickler_can_be_used_for_a_file(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        Pickler(file).dump(lambda: 3)
    with (tmp_path / "file").open("rb") as file:
        assert pickle.load(file)() == 3


# -- functions that other modules name ---------------------------------------------------------------------

ALIASES = {
    "plain": "def g(): return 1\n{} = g",
    "cached": "import functools\n@functools.lru_cache\ndef g(): return 1\n{} = g",
    "default": "def g(): return 1\n{} = lambda h=g: h()",
    "in a list": "def g(): return 1\nheld = [g]\n{} = lambda: held[0]()",
    "closure": "def made():\n    n = 1\n    def g(): return n\n    return g\ng = made()\ng.__qualname__ = 'g'\n{} = g",
}


@pytest.mark.parametrize("case", ALIASES)
def test_the_other_names_of_a_function_that_is_changed_in_place(worker: Worker, notebook: Notebook, case: str) -> None:
    module = notebook(ALIASES[case].format("alias") + "\ndef f(): return alias(), g()")
    assert worker.call(module.f) == (1, 1)
    for number in (2, 3):
        if case == "closure":
            module.g.__closure__[0].cell_contents = number
        else:
            getattr(module.g, "__wrapped__", module.g).__code__ = eval(f"lambda: {number}").__code__
            getattr(module.g, "cache_clear", int)()
        assert worker.call(module.f) == module.f() == (number, number)
    assert worker.call(module.f) == (3, 3)


def test_functions_that_name_each_other(worker: Worker, notebook: Notebook) -> None:
    module = notebook(
        """
        def one(x): return one.other(x - 1) if x else 1
        def other(x): return other.other(x - 1) if x else 2
        one.other, other.other = other, one
        def f(x): return one(x)
        def g(x): return other(x)
        """
    )
    for _ in range(2):
        assert [worker.call(module.f, 3), worker.call(module.g, 3)] == [2, 1]
    module.one.__code__ = (lambda x: 5).__code__
    assert [worker.call(module.f, 3), worker.call(module.g, 3)] == [5, 5]


def test_an_attribute_that_a_module_makes_when_it_is_wanted(worker: Worker, notebook: Notebook) -> None:
    lazy = notebook(
        "K = 1\ndef g(): return K\ndef __getattr__(name):\n    if name in 'az': return g\n    raise AttributeError"
    )
    here = types.ModuleType("uses_lazy")
    vars(here)["lazy"] = lazy
    exec("def f(): return lazy.z()\ndef missing(): return hasattr(lazy, 'absent')", vars(here))
    assert worker.call(here.f) == 1
    lazy.K = 2
    assert worker.call(here.f) == 2
    assert not worker.call(here.missing)


def test_a_function_that_another_has_replaced_under_its_name(
    worker: Worker, shared: Worker, notebook: Notebook
) -> None:
    module = notebook("def g(): return 1\nclass C: k = 1\nalias, D = g, C\ndef f(): return alias(), g(), D.k, C.k")
    assert worker.call(module.f) == (1, 1, 1, 1)
    notebook("def g(): return 2\nclass C: k = 2")
    assert shared.call(module.f) == worker.call(module.f) == module.f() == (1, 2, 1, 2)
