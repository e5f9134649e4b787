"""A function means its code and all that it reaches: what changes that changes the key, and nothing else does."""

from __future__ import annotations

import importlib
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from callyard.hashing.call_key import call_key
from callyard.hashing.definition_tokens import token_at, unfollowed

Files = dict[str, str]


class Labs:
    """Loads modules of the user's, each time from a new directory."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.count = 0
        self.before = set(sys.modules)

    def load(self, files: Files, name: str = "lab") -> Any:
        self.unload()
        self.count += 1
        root = self.place / str(self.count)
        for path, source in files.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(source)
        sys.path.insert(0, str(root))
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def unload(self) -> None:
        sys.path[:] = [path for path in sys.path if not path.startswith(str(self.place))]
        for name in set(sys.modules) - self.before:
            if str(getattr(sys.modules[name], "__file__", "")).startswith(str(self.place)):
                del sys.modules[name]

    def key(self, files: Files) -> str:
        lab = self.load(files)
        return call_key(lab.f, (1,), {}).hex


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Labs]:
    found = Labs(tmp_path)
    yield found
    found.unload()


def _files(source: str | Files) -> Files:
    found = source if isinstance(source, dict) else {"lab.py": source}
    return {path: textwrap.dedent(text).lstrip("\n") for path, text in found.items()}


SMALL = """
K = 3

def f(x):
    y = x + K
    return y * 2
"""

CLASSES = """
from dataclasses import dataclass, field
from enum import Enum
import functools

class Base:
    rate = 1
    def step(self, x): return x + 1
    def other(self): return 7

class Meta(type):
    def made(cls): return 1

class Thing(Base, metaclass=Meta):
    scale = 2
    table = {"a": [1, 2]}
    def __init__(self, x): self.x = x
    @property
    def half(self): return self.x / 2
    @staticmethod
    def fixed(x): return x + 11
    @classmethod
    def make(cls): return cls(12)
    @functools.cached_property
    def slow(self): return self.x + 13
    def step(self, x): return super().step(x) * 3
    class Inner:
        deep = 14
        def inner(self): return 15

@dataclass
class Point:
    x: int = 21
    y: list = field(default_factory=lambda: [22])

class Color(Enum):
    RED = 31
    BLUE = (32, "b")
    @classmethod
    def _missing_(cls, value): return cls.RED
    def mixed(self): return 33

class Slots:
    __slots__ = ("a", "b")
    def slot(self): return 41

def f(x):
    return Thing(x).step(x), Point(), Color.RED, Slots()
"""

CALLS = """
import functools

def deepest(x): return x + 1
def helper(x): return deepest(x) * 2
def unrelated(x): return x - 1
UNRELATED = 9
TABLE = [1, [2, {"k": 3}]]
REGISTRY = {"one": lambda x: x + 100}

def even(n): return n == 0 or odd(n - 1)
def odd(n): return n != 0 and even(n - 1)
def rec(n): return 1 if n < 2 else n * rec(n - 1) + 0

@functools.lru_cache(maxsize=16)
def cached(x): return x + 200

def doubled(function):
    @functools.wraps(function)
    def wrapper(*args): return function(*args) * 300
    return wrapper

@doubled
def decorated(x): return x + 400

@functools.singledispatch
def shown(x): return x + 500
@shown.register(str)
def _(x): return x + "600"

part = functools.partial(helper, 700)

class Callable:
    def __init__(self): self.offset = 800
    def __call__(self, x): return x + self.offset + 900
    def method(self, x): return x + 1000
called = Callable()
bound = called.method

def made(n):
    def inside(x): return x + n + 1100
    return inside
closure = made(1200)
default_of_helper = 1300
def defaults(x, y=default_of_helper, *, z=1400): return x + y + z

def f(x, y=5, *, z=6):
    def nested(a): return a + 1500 + K0
    values = [K1 + i for i in range(3)]
    function = lambda: K2
    match = helper(x), even(x), rec(x), cached(x), decorated(x), shown(x), part(), called(x), bound(x), closure(x)
    return nested(x), values, function(), match, TABLE, REGISTRY, defaults(x)

K0, K1, K2 = 1600, 1700, 1800
"""

PACKAGE: Files = {
    "lab/__init__.py": """
        from lab import h, deep
        import lab.far as far
        from .near import near_function
        from . import passed, used_by_cell

        def use(module): return module.anything()

        def f(x):
            import lab.late as late
            import lab.dotted
            from lab.names import name, other_name as renamed
            from lab import sub
            from . import relative
            from .more import thing
            use(passed)
            return (h.help(x), deep.inner.go(x), far.away(), near_function(), late.call(), lab.dotted.call(),
                    name(), renamed(), sub.call(), relative.call(), thing(), with_cell(x))

        def outer():
            import lab.used_by_cell as cell
            def inner(x): return cell.call(), [cell.listed for _ in "a"]
            return inner
        with_cell = outer()
        """,
    "lab/h.py": "def help(x): return x + 1\ndef unused(x): return x + 2\n",
    "lab/deep/__init__.py": "from . import inner\nunused = 3\n",
    "lab/deep/inner.py": "def go(x): return x + 4\ndef unused(x): return x + 5\n",
    "lab/far.py": "def away(): return 6\ndef unused(): return 7\n",
    "lab/near.py": "def near_function(): return 8\ndef unused(): return 9\n",
    "lab/late.py": "def call(): return 10\ndef unused(): return 11\n",
    "lab/dotted.py": "def call(): return 12\ndef unused(): return 13\n",
    "lab/names.py": "def name(): return 14\ndef other_name(): return 15\ndef unused(): return 16\n",
    "lab/sub.py": "def call(): return 17\ndef unused(): return 18\n",
    "lab/relative.py": "def call(): return 19\ndef unused(): return 20\n",
    "lab/more.py": "def thing(): return 21\ndef unused(): return 22\n",
    "lab/passed.py": "def anything(): return 23\ndef also_passed(): return 24\n",
    "lab/used_by_cell.py": "def call(): return 25\nlisted = 26\nunused = 27\n",
    "lab/nobody.py": "def unused(): return 28\n",
}

SAME: dict[str, tuple[str | Files, str, str]] = {
    "comment": (SMALL, "y = x", "# a comment\n    y = x"),
    "blank lines": (SMALL, "    return", "\n\n    return"),
    "spaces": (SMALL, "x + K", "x  +  (K)"),
    "docstring": (SMALL, "def f(x):", 'def f(x):\n    """What it does."""'),
    "annotations": (SMALL, "def f(x):", "def f(x: int) -> int:"),
    "annotated variable": (SMALL, "y = x", "y: int = x"),
    "below another": (SMALL, "K = 3", "K = 3\n\ndef another():\n    pass\n"),
    "unrelated global": (SMALL, "K = 3", "K = 3\nL = 4"),
    "value computed in another way": (SMALL, "K = 3", "K = 1 + 2"),
    "line ends": (SMALL, "x + K", "(\n        x\n        + K\n    )"),
    "unrelated function": (CALLS, "x - 1", "x - 2"),
    "unrelated value": (CALLS, "UNRELATED = 9", "UNRELATED = 10"),
    "order of definitions": (CALLS, "K0, K1, K2 = 1600, 1700, 1800", "K2, K1, K0 = 1800, 1700, 1600"),
    "order in a dict": (CLASSES, '{"a": [1, 2]}', '{"a": [1] + [2]}'),
    "docstring of a class": (CLASSES, "    scale = 2", '    """A thing."""\n    scale = 2'),
    "docstring of a method": (
        CLASSES,
        "def other(self): return 7",
        'def other(self):\n        "Doc"\n        return 7',
    ),
    "order of methods": (
        CLASSES,
        "    def step(self, x): return x + 1\n    def other(self): return 7\n",
        "    def other(self): return 7\n    def step(self, x): return x + 1\n",
    ),
    **{
        f"unused, line {number}": (PACKAGE, f"return {number}", f"return 0, {number}")
        for number in (7, 9, 11, 13, 16, 18, 20, 22, 28)
    },
    "unused with x": (PACKAGE, "x + 2\n", "x + 102\n"),
    "unused inside": (PACKAGE, "x + 5\n", "x + 105\n"),
    "unused value of a package": (PACKAGE, "unused = 3\n", "unused = 103\n"),
    "unused by a cell": (PACKAGE, "unused = 27\n", "unused = 127\n"),
}

CHANGED: dict[str, tuple[str | Files, str, str]] = {
    "constant in code": (SMALL, "y * 2", "y * 3"),
    "type of a constant": (SMALL, "y * 2", "y * 2.0"),
    "global": (SMALL, "K = 3", "K = 4"),
    "type of a global": (SMALL, "K = 3", "K = 3.0"),
    "operator": (SMALL, "y * 2", "y + 2"),
    "sign": (SMALL, "y * 2", "-y * 2"),
    "missing global": (SMALL, "K = 3", ""),
    "shadowed builtin": (CALLS, "UNRELATED = 9", "def range(n): return [n]"),
    "helper": (CALLS, "deepest(x) * 2", "deepest(x) * 3"),
    "helper's helper": (CALLS, "return x + 1\n", "return x + 2\n"),
    "list in a global": (CALLS, "[1, [2", "[1, [4"),
    "dict in a list": (CALLS, '{"k": 3}', '{"k": 4}'),
    "lambda in a dict": (CALLS, "x + 100}", "x + 101}"),
    "recursion": (CALLS, "rec(n - 1) + 0", "rec(n - 1) + 1"),
    "mutual recursion": (CALLS, "n != 0 and", "n != 1 and"),
    "mutual recursion, the first": (CALLS, "n == 0 or", "n == 1 or"),
    "cached": (CALLS, "x + 200", "x + 201"),
    "size of a cache": (CALLS, "maxsize=16", "maxsize=17"),
    "decorator": (CALLS, "* 300", "* 301"),
    "decorated": (CALLS, "x + 400", "x + 401"),
    "no longer decorated": (CALLS, "@doubled\n", ""),
    "dispatched": (CALLS, "x + 500", "x + 501"),
    "registered": (CALLS, '"600"', '"601"'),
    "registered for another": (CALLS, "register(str)", "register(bytes)"),
    "partial": (CALLS, "helper, 700", "helper, 701"),
    "state of a callable": (CALLS, "offset = 800", "offset = 801"),
    "callable": (CALLS, "+ 900", "+ 901"),
    "bound method": (CALLS, "x + 1000\n", "x + 1001\n"),
    "inner function": (CALLS, "n + 1100", "n + 1101"),
    "closure": (CALLS, "made(1200)", "made(1201)"),
    "default": (CALLS, "= 1300", "= 1301"),
    "keyword default": (CALLS, "z=1400", "z=1401"),
    "nested function": (CALLS, "a + 1500", "a + 1501"),
    "global of a nested function": (CALLS, "1600, 1700", "1601, 1700"),
    "global of a comprehension": (CALLS, "1700, 1800", "1701, 1800"),
    "global of a lambda": (CALLS, "1800\n", "1801\n"),
    "own default": (CALLS, "y=5", "y=55"),
    "own keyword default": (CALLS, "z=6", "z=66"),
    "class attribute": (CLASSES, "scale = 2", "scale = 3"),
    "content of a class attribute": (CLASSES, "[1, 2]", "[1, 3]"),
    "method": (CLASSES, "super().step(x) * 3", "super().step(x) * 4"),
    "method of a base": (CLASSES, "return x + 1\n", "return x + 2\n"),
    "attribute of a base": (CLASSES, "rate = 1", "rate = 2"),
    "base": (CLASSES, "class Thing(Base, ", "class Thing("),
    "metaclass": (CLASSES, "def made(cls): return 1", "def made(cls): return 2"),
    "property": (CLASSES, "self.x / 2", "self.x / 3"),
    "static method": (CLASSES, "x + 11", "x + 12"),
    "static method made a class method": (CLASSES, "@staticmethod", "@classmethod"),
    "class method": (CLASSES, "cls(12)", "cls(13)"),
    "cached property": (CLASSES, "x + 13", "x + 14"),
    "inner class": (CLASSES, "deep = 14", "deep = 15"),
    "method of an inner class": (CLASSES, "return 15", "return 16"),
    "default of a field": (CLASSES, "int = 21", "int = 22"),
    "annotation of a field": (CLASSES, "x: int = 21", "x: float = 21"),
    "factory of a field": (CLASSES, "[22]", "[23]"),
    "options of a dataclass": (CLASSES, "@dataclass\n", "@dataclass(order=True)\n"),
    "value of an enum": (CLASSES, "RED = 31", "RED = 30"),
    "name of an enum": (CLASSES, "BLUE", "CYAN"),
    "missing of an enum": (CLASSES, "return cls.RED", "return cls.BLUE"),
    "method of an enum": (CLASSES, "return 33", "return 34"),
    "slots": (CLASSES, '("a", "b")', '("a", "c")'),
    "method of a class with slots": (CLASSES, "return 41", "return 42"),
    **{
        f"used, line {number}": (PACKAGE, f"return {number}\n", f"return 0, {number}\n")
        for number in (6, 8, 10, 12, 14, 15, 17, 19, 21, 23, 24, 25)
    },
    "through a module": (PACKAGE, "x + 1\n", "x + 101\n"),
    "through modules": (PACKAGE, "x + 4\n", "x + 104\n"),
    "of a cell": (PACKAGE, "listed = 26", "listed = 126"),
}


def _edited(source: str | Files, old: str, new: str) -> tuple[Files, Files]:
    files = _files(source)
    assert sum(text.count(old) for text in files.values()) == 1, "the edit must be one"
    return files, {path: text.replace(old, new) for path, text in files.items()}


@pytest.mark.parametrize("case", SAME)
def test_what_means_the_same(labs: Labs, case: str) -> None:
    before, after = _edited(*SAME[case])
    assert labs.key(before) == labs.key(after)


@pytest.mark.parametrize("case", CHANGED)
def test_what_means_something_else(labs: Labs, case: str) -> None:
    before, after = _edited(*CHANGED[case])
    assert labs.key(before) != labs.key(after)


@pytest.mark.parametrize("case", CHANGED)
def test_what_means_something_else_without_its_source(labs: Labs, case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.hashing.syntax_tree.function_of", lambda code: None)
    before, after = _edited(*CHANGED[case])
    assert labs.key(before) == labs.key(before)
    assert labs.key(before) != labs.key(after)


# -- at run time -------------------------------------------------------------------------------------------

LIVE = """
import functools
SCALE = 2
TABLE = {"a": [1]}
class Config:
    rate = 1.5
    names = ["a"]
    def method(self): return 1
    @property
    def half(self): return 2
    @staticmethod
    def fixed(): return 3
    class Nested:
        inside = 1
class State:
    def __init__(self): self.x = [1]
state = State()
def helper(x, y=1, *, z=[1]): return x
def other(x, y=1, *, z=[1]): return x + 1
LOG = []
push = LOG.append
part = functools.partial(helper, 1)
def counter():
    n = 0
    box = [0]
    def bump(): nonlocal n; n += 1
    def read(): return n, box
    return bump, box, read
bump, box, read = counter()
def mutual(x): return f(x)
def f(x):
    import sub
    return SCALE, TABLE, Config, state, helper, read, push, part, sub.y(), mutual
"""

Act = Callable[[Any], None]


def _setting(path: str, value: Any) -> Act:
    def act(lab: Any) -> None:
        *parts, last = path.split(".")
        for part in parts:
            lab = getattr(lab, part)
        setattr(lab, last, value)

    return act


ACTS: dict[str, tuple[Act, Act]] = {
    "a global": (_setting("SCALE", 5), _setting("SCALE", 2)),
    "type of a global": (_setting("SCALE", 2.0), _setting("SCALE", 2)),
    "a global is gone": (lambda lab: delattr(lab, "SCALE"), _setting("SCALE", 2)),
    "content of a dict": (lambda lab: lab.TABLE["a"].append(2), lambda lab: lab.TABLE["a"].pop()),
    "an attribute of a class": (_setting("Config.rate", 2.5), _setting("Config.rate", 1.5)),
    "content of one": (lambda lab: lab.Config.names.append("b"), lambda lab: lab.Config.names.pop()),
    "a new attribute of a class": (_setting("Config.more", 1), lambda lab: delattr(lab.Config, "more")),
    "an attribute of a nested class": (_setting("Config.Nested.inside", 2), _setting("Config.Nested.inside", 1)),
    "an instance": (_setting("state.x", [2]), _setting("state.x", [1])),
    "inside an instance": (lambda lab: lab.state.x.append(1), lambda lab: lab.state.x.pop()),
    "a cell": (lambda lab: lab.bump(), lambda lab: _set_cell(lab.read, 0)),
    "inside a cell": (lambda lab: lab.box.append(1), lambda lab: lab.box.pop()),
    "a default": (_setting("helper.__defaults__", (2,)), _setting("helper.__defaults__", (1,))),
    "content of a default": (
        lambda lab: lab.helper.__kwdefaults__["z"].append(2),
        lambda lab: lab.helper.__kwdefaults__["z"].pop(),
    ),
    "a keyword default": (
        _setting("helper.__kwdefaults__", {"z": [1], "y": 2}),
        _setting("helper.__kwdefaults__", {"z": [1]}),
    ),
    "an attribute of a function": (_setting("helper.note", 1), lambda lab: delattr(lab.helper, "note")),
    "what a bound builtin is bound to": (lambda lab: lab.push(1), lambda lab: lab.LOG.pop()),
}


def _set_cell(function: Any, value: Any) -> None:
    cells = dict(zip(function.__code__.co_freevars, function.__closure__, strict=True))
    cells["n"].cell_contents = value


@pytest.mark.parametrize("case", ACTS)
def test_changed_while_it_runs_and_back(labs: Labs, case: str) -> None:
    act, undo = ACTS[case]
    lab = labs.load({"lab.py": LIVE, "sub.py": "def y(): return 1\n"})
    first = call_key(lab.f, (1,), {}).hex
    assert call_key(lab.f, (1,), {}).hex == first
    act(lab)
    second = call_key(lab.f, (1,), {}).hex
    assert second != first
    assert call_key(lab.f, (1,), {}).hex == second
    undo(lab)
    assert call_key(lab.f, (1,), {}).hex == first


def test_values_at_reused_addresses(labs: Labs) -> None:
    lab = labs.load({"lab.py": "class C:\n    x = 0.0\nK = 0.0\ndef f(x): return C, K\n"})
    found = set()
    for i in range(50):  # a float that was freed leaves its address to the next one
        lab.C.x = lab.K = i + 0.5
        found.add(call_key(lab.f, (1,), {}).hex)
    assert len(found) == 50


def test_code_replaced_as_autoreload_does(labs: Labs) -> None:
    lab = labs.load({"lab.py": LIVE, "sub.py": "def y(): return 1\n"})
    first, code = call_key(lab.f, (1,), {}).hex, lab.helper.__code__
    lab.helper.__code__ = lab.other.__code__
    assert call_key(lab.f, (1,), {}).hex != first
    lab.helper.__code__ = code
    assert call_key(lab.f, (1,), {}).hex == first


@pytest.mark.parametrize("name", ["Config.method", "Config.half", "Config.fixed", "helper"])
def test_a_part_replaced_by_another(labs: Labs, name: str) -> None:
    lab = labs.load({"lab.py": LIVE, "sub.py": "def y(): return 1\n"})
    first = call_key(lab.f, (1,), {}).hex
    owner: Any = lab.Config if "." in name else lab
    last = name.rpartition(".")[2]
    original = vars(owner)[last]
    kind = type(original)
    setattr(owner, last, lab.other if kind is type(lab.f) else kind(lab.other))
    assert call_key(lab.f, (1,), {}).hex != first
    setattr(owner, last, original)
    assert call_key(lab.f, (1,), {}).hex == first


def test_bases_replaced(labs: Labs) -> None:
    source = "class A: x = 1\nclass B: x = 2\nclass C(A): pass\ndef f(x): return C().x\n"
    lab = labs.load({"lab.py": source})
    first = call_key(lab.f, (1,), {}).hex
    lab.C.__bases__ = (lab.B,)
    assert call_key(lab.f, (1,), {}).hex != first
    lab.C.__bases__ = (lab.A,)
    assert call_key(lab.f, (1,), {}).hex == first


def test_a_module_loaded_again(labs: Labs) -> None:
    lab = labs.load({"lab.py": LIVE, "sub.py": "def y(): return 1\n"})
    first = call_key(lab.f, (1,), {}).hex
    sub = Path(sys.modules["sub"].__file__ or "")
    sub.write_text("def y(): return 22\n")
    assert call_key(lab.f, (1,), {}).hex == first, "what is loaded is still the old one"
    importlib.reload(sys.modules["sub"])
    second = call_key(lab.f, (1,), {}).hex
    assert second != first
    sub.write_text("def y(): return 333\n")
    del sys.modules["sub"]
    importlib.invalidate_caches()
    assert call_key(lab.f, (1,), {}).hex not in (first, second), "an import statement finds the new one"


def test_a_builtin_replaced(labs: Labs, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = labs.load({"lab.py": "def mine(x): return 7\ndef f(x): return ascii(x)\n"})
    first = call_key(lab.f, (1,), {}).hex
    monkeypatch.setattr("builtins.ascii", lab.mine)
    assert call_key(lab.f, (1,), {}).hex != first
    monkeypatch.undo()
    assert call_key(lab.f, (1,), {}).hex == first


def test_what_is_attached_to_a_closure_is_not_kept_alive() -> None:
    import gc
    import weakref

    class Data:
        pass

    def outer() -> tuple[Any, weakref.ref[Data]]:
        data = Data()

        def inner(n: int) -> Any:
            return inner, data, Data

        return inner, weakref.ref(data)

    function, reference = outer()
    call_key(function, (1,), {})
    call_key(function, (1,), {})
    del function
    gc.collect()
    assert reference() is None


def test_private_names_depend_on_the_class(labs: Labs) -> None:
    source = "class {}:\n    def method(self, x): return x.__y\ndef f(x): return {}.method\n"
    lab = labs.load({"lab.py": source.format("A", "A") + source.format("B", "B")})
    assert call_key(lab.A.method, (1, 2), {}).hex != call_key(lab.B.method, (1, 2), {}).hex


def test_a_wrapper_that_calls_what_it_wraps_by_attribute(labs: Labs) -> None:
    source = """
import functools
def deco(function):
    def wrapper(x): return wrapper.__wrapped__(x)
    return functools.update_wrapper(wrapper, function)
@deco
def f(x): return x + 1
"""
    assert labs.key({"lab.py": source}) != labs.key({"lab.py": source.replace("x + 1", "x + 2")})


def test_what_cannot_be_followed_is_listed(labs: Labs) -> None:
    source = """
import os, random, time
from time import time as now
from random import random as draw
from datetime import datetime
def helper(): return os.environ["A"], now(), draw(), open("x")
def f(x):
    import subprocess
    return eval("1"), getattr(x, x), time.time(), random.random(), datetime.now(), helper(), subprocess.run([])
"""
    lab = labs.load({"lab.py": source})
    found = unfollowed(lab.f)
    for name in ("eval", "getattr", "open", "time.time", "random.random", "subprocess.run", "os.environ"):
        assert any(part.startswith(name) for part in found), (name, found)
    assert any("datetime" in part for part in found)
    first = call_key(lab.f, (1,), {}).hex
    lab.draw()
    lab.random.random()
    assert call_key(lab.f, (1,), {}).hex == first, "what random.random is bound to does not count"


# -- size --------------------------------------------------------------------------------------------------


def test_five_hundred_classes_that_refer_to_each_other(labs: Labs) -> None:
    n = 500
    source = "".join(
        f"class C{i}:\n    x = {i}\n    def m(self): return C{(i + 1) % n}, C{(i * 7) % n}, C{(i * 13) % n}\n"
        for i in range(n)
    )
    source += "INSTANCES = [" + ", ".join(f"C{i}()" for i in range(n)) + "]\ndef f(x): return C0, INSTANCES\n"
    first = labs.key({"lab.py": source})
    assert labs.key({"lab.py": source.replace("x = 499", "x = -1")}) != first


def test_a_chain_of_helpers_and_a_large_module(labs: Labs) -> None:
    n = 1000
    source = "".join(f"def g{i}(x): return g{i + 1}(x) + {i}\n" for i in range(n)) + f"def g{n}(x): return x\n"
    source += "def f(x): return g0(x)\n"
    first = labs.key({"lab.py": source})
    assert labs.key({"lab.py": source.replace("return x\n", "return -x\n")}) != first


def test_singletons_that_know_each_other(labs: Labs) -> None:
    n = 30
    source = "".join(
        f"class C{i}:\n    def m(self): return {', '.join(f's{k}' for k in range(n))}\ns{i} = C{i}()\n"
        for i in range(n)
    )
    lab = labs.load({"lab.py": source + "def f(x): return s0\n"})
    first = call_key(lab.f, (1,), {}).hex
    assert call_key(lab.f, (lab.s1,), {}).hex != first
    lab.s7.x = 1
    assert call_key(lab.f, (1,), {}).hex != first
    del lab.s7.x
    assert call_key(lab.f, (1,), {}).hex == first


# -- what a worker imports ---------------------------------------------------------------------------------

SENT = """
import threading
LOCK = threading.Lock()
TABLE = {"a": [1]}
def helper(x): return x
class Thing: pass
def made():
    return lambda x: (LOCK, TABLE, helper, Thing)
def unused(x): return x
"""


def test_what_is_imported_there_is_pinned(labs: Labs) -> None:
    lab = labs.load({"lab.py": SENT})
    with pytest.warns(UserWarning, match="LOCK holds: it is a lock"):
        call = call_key(lab.made(), (1,), {})
    assert {name for module, name, *_ in call.references} == {"LOCK", "TABLE", "helper", "Thing"}
    assert all(token_at(module, name) == token for module, name, token, _ in call.references)
    lab.TABLE["a"].append(2)
    changed = [name for module, name, token, _ in call.references if token_at(module, name) != token]
    assert changed == ["TABLE"]
    lab.TABLE["a"].pop()
    lab.helper.__code__ = (lambda x: x + 1).__code__
    changed = [name for module, name, token, _ in call.references if token_at(module, name) != token]
    assert changed == ["helper"]


def test_classes_of_arguments_are_pinned(labs: Labs) -> None:
    lab = labs.load({"lab.py": SENT})
    call = call_key(lab.unused, ([lab.Thing()],), {})
    assert {name for _, name, *_ in call.references} == {"unused", "Thing"}
    before = call.references
    lab.Thing.more = 1
    assert [token_at(*place[:2]) == place[2] for place in before] == [place[1] != "Thing" for place in before]


@pytest.mark.parametrize("change", ["a=1|b=1", "a=1|a=2", "a=1, b=2|b=2, a=1", "*a|**a"])
def test_arguments_of_calls_in_code_without_source(change: str) -> None:
    keys = set()
    for arguments in change.split("|"):
        names: dict[str, Any] = {}
        exec(f"def f(g, a=()): return g({arguments})", names)
        keys.add(call_key(names["f"], (dict,), {}).hex)
    assert len(keys) == 2
