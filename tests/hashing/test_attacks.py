"""What once crashed a key, or gave one key to two meanings, or two keys to one."""

from __future__ import annotations

import abc
import functools
import importlib.util
import os
import struct
import sys
import textwrap
import time
import types
import warnings
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from callyard.errors import CacheError
from callyard.hashing.call_key import call_key
from callyard.hashing.decorator import keyed
from callyard.hashing.definition_tokens import unfollowed
from callyard.hashing.values import value_token


def key(function: Callable[..., Any], *args: Any, **kwargs: Any) -> str:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what counts by its type
        return call_key(function, args, kwargs).hex


def anything(x: Any = None) -> None: ...


Load = Callable[..., Any]


@pytest.fixture
def load(tmp_path: Path) -> Iterator[Load]:
    """Makes modules of texts, each time another file, under a name that they share."""
    before, count = dict(sys.modules), 0

    def load(text: str, name: str = "lab_attacked", keep: bool = True) -> Any:
        nonlocal count
        count += 1
        path = tmp_path / f"{count}.py"
        path.write_text(textwrap.dedent(text))
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        if keep:
            sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    for name in set(sys.modules) - set(before):
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(tmp_path)):
            del sys.modules[name]


# -- crashes -----------------------------------------------------------------------------------------------


def test_random_generators_of_numpy() -> None:
    np = pytest.importorskip("numpy")
    made: list[Callable[[int], Any]] = [
        *(np.random.default_rng, np.random.SeedSequence, np.random.RandomState),
        *(lambda seed: np.random.Generator(np.random.Philox(seed)), np.random.MT19937),
    ]
    for make in made:
        assert value_token(make(1)) == value_token(make(1)) != value_token(make(2))


def test_the_masked_constant() -> None:
    np = pytest.importorskip("numpy")
    assert value_token(np.ma.masked) == value_token([np.ma.masked, 1][0]) != value_token(np.ma.array(0.0, mask=True))


def _hostile() -> list[Any]:
    def fails(*_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("mine")

    class Meta(type):
        def __eq__(self, other: object) -> bool:
            return self is other

    reducers = (fails, lambda *_: (int,), lambda *_: 5, lambda *_: ())
    found = [type("Odd", (), {"__reduce_ex__": reducer})() for reducer in reducers]
    found.append(type("Odd", (Future,), {"done": fails})())
    return [*found, Meta("Odd", (), {})()]


@pytest.mark.parametrize("number", range(len(_hostile())))
def test_what_fails_when_it_is_asked_is_refused(number: int) -> None:
    value = _hostile()[number]
    for argument in (value, [value], {"a": value}):
        with pytest.raises(CacheError, match="argument 'x' of 'anything' cannot be cached"):
            call_key(anything, (argument,), {})


def test_classes_that_do_not_say_their_module() -> None:
    for module in (None, 5):
        cls = type("Odd", (), {"__module__": module})
        assert value_token(cls()) == value_token(cls())


# -- one key for two meanings: calls -----------------------------------------------------------------------


def _wrapped(wrapper: Any) -> Any:
    def f(x: Any, b: Any = 1) -> Any: ...

    return functools.wraps(f)(wrapper)


def test_a_wrapper_may_tell_what_was_given() -> None:
    plain = _wrapped(lambda *args, **kwargs: kwargs.setdefault("b", 2))
    assert key(plain, 5) != key(plain, 5, b=1)
    assert key(plain, 5, 1) == key(plain, b=1, x=5) != key(plain, 5, 2)
    other = _wrapped(lambda x, b=2: None)
    assert key(other, 5) != key(other, 5, b=1)
    swapped = _wrapped(lambda b, x: None)
    assert key(swapped, 1, 2) != key(swapped, x=1, b=2)
    around = functools.wraps(swapped)(lambda *args, **kwargs: swapped(*args, **kwargs))
    for function in (around, functools.partial(around), functools.lru_cache(around)):
        assert key(function, 1, 2) != key(function, x=1, b=2)


def test_a_version_wants_a_name() -> None:
    class Callable_:
        def __call__(self) -> None: ...

    for function in (Callable_(), functools.partial(anything, 1)):
        with pytest.raises(CacheError, match="has no name that a version could be of"):
            keyed(version=1)(function)


# -- one key for two meanings: code ------------------------------------------------------------------------

DIFFER = {
    "order of an enum": "from enum import Enum\nclass E(Enum):\n A = 1\n B = 2\n{0}",
    "sentinels": "A = object()\nB = object()\nX = {0}\ndef f(x): return (X is A, X is B)",
    "module's text": "'''{0}'''\ndef f(x): return __doc__",
    "class body": "class C:\n {0}\ndef f(x): return list(vars(C))",
    "enum": "import enum\nclass E(enum.Enum):\n {0}\ndef f(x): return list(E)",
    "property": "class p(property):\n def __get__(self, *_): return {0}\n"
    "class C:\n a = p(lambda s: 1)\ndef f(x): return C().a",
    "static": "class p(staticmethod):\n k = {0}\nclass C:\n a = p(len)\ndef f(x): return C.__dict__['a'].k",
    "bases": "from typing import Generic, TypeVar\nT = TypeVar('T')\nU = TypeVar('U')\n"
    "class C(Generic[{0}]): pass\ndef f(x): return C.__orig_bases__",
    "bound": "from typing import TypeVar\nT = TypeVar('T', bound={0})\ndef f(x): return T.__bound__",
    "new type": "from typing import NewType\nT = NewType('T', {0})\ndef f(x): return T.__supertype__",
    "annotation": "class A:\n def g(self): return {0}\nclass C:\n a: A\ndef f(x): return C.__annotations__",
    "weak": "import weakref\nclass A:\n def __init__(self, k): self.k = k\na = A({0})\nr = weakref.ref(a)\n"
    "def f(x): return r().k",
    "view": "d = dict(a={0})\nv = d.values()\ndef f(x): return list(v)",
}
VALUES = {
    "sentinels": ("A", "B"),
    "class body": ("a = 1; b = 2", "b = 2; a = 1"),
    "enum": ("A = 1; B = 2", "B = 2; A = 1"),
    "order of an enum": (
        " C = 1\ndef f(x): return list(E.__members__)",
        " D = 1\ndef f(x): return list(E.__members__)",
    ),
    "bases": ("T", "U"),
    "bound": ("int", "str"),
    "new type": ("int", "str"),
}


@pytest.mark.parametrize("case", DIFFER)
def test_what_differs_in_the_module(load: Load, case: str) -> None:
    keys = [key(load(DIFFER[case].replace("{0}", value)).f, 1) for value in (*VALUES.get(case, ("1", "2")),)]
    assert keys[0] != keys[1]
    assert key(load(DIFFER[case].replace("{0}", VALUES.get(case, ("1", "2"))[0])).f, 1) == keys[0]


def test_canonical_names_of_enums(load: Load) -> None:
    text = "import enum\nclass E(enum.Enum):\n {0}\ndef f(x): return E.A.name"
    assert key(load(text.format("A = 1; B = 1")).f, 1) != key(load(text.format("B = 1; A = 1")).f, 1)


IMPORTS = [
    "def f(x):\n global um_attacked\n import um_attacked\n return um_attacked.K",
    "def f(x):\n class C:\n  import um_attacked\n return C.um_attacked.K",
    "def f(x):\n class C:\n  import um_attacked\n  k = um_attacked.K\n return C.k",
]


@pytest.mark.parametrize("text", IMPORTS)
def test_imports_that_are_bound_elsewhere(load: Load, text: str) -> None:
    function = load(text).f
    keys = []
    for k in (1, 2):
        load(f"K = {k}", "um_attacked")
        keys.append(key(function, 1))
    assert keys[0] != keys[1]


def test_a_module_under_the_name_of_another(load: Load) -> None:
    keys = []
    for k in (1, 2):
        lab = load("def f(x): return mine.g(), mine.K\n")
        lab.mine = load(f"K = {k}\ndef g(): return {k}\n", "random", keep=False)
        keys += [key(lab.f, 1), key(lab.mine.g)]
    assert len(set(keys)) == 4


def test_a_function_inside_a_ufunc(load: Load) -> None:
    pytest.importorskip("numpy")
    text = "import numpy as np\ndef g(x): return x + {}\nu = np.frompyfunc(g, 1, 1)\ndef f(x): return u(x)"
    assert key(load(text.format(1)).f, 1) != key(load(text.format(2)).f, 1)


def test_equal_classes_of_two_modules(load: Load) -> None:
    one, two = (load("class Marker: pass", name).Marker for name in ("m1_attacked", "m2_attacked"))
    assert value_token(one()) != value_token(two())


def test_what_was_registered(load: Load) -> None:
    lab = load("import abc\nclass A(abc.ABC): pass\nclass B: pass\ndef f(x): return isinstance(B(), A)")
    first = key(lab.f, 1)
    lab.A.register(lab.B)
    assert key(lab.f, 1) != first
    assert isinstance(lab.A, abc.ABCMeta)


def test_builtins_that_are_added_and_replaced(load: Load, monkeypatch: pytest.MonkeyPatch) -> None:
    lab = load("def f(x): return abs(x) + added_name")
    first = key(lab.f, 1)
    monkeypatch.setattr("builtins.abs", lambda x: 7)
    second = key(lab.f, 1)
    monkeypatch.setattr("builtins.added_name", 1, raising=False)
    third = key(lab.f, 1)
    monkeypatch.setattr("builtins.abs", round)
    assert len({first, second, third, key(lab.f, 1)}) == 4


def test_modules_that_are_passed_on_whole(load: Load) -> None:
    lab = load("def f(x): return str(um)")
    texts = ["", "__version__ = '1'", "def __getattr__(n): return 1", "def __getattr__(n): return 2"]
    keys = []
    for text in texts:
        lab.um = load(text, "um_attacked")
        keys.append(key(lab.f, 1))
    for number in (1, 2):
        lab.um = load("", "um_attacked")
        namespace: dict[str, Any] = {}
        exec(f"def __str__(self): return {number}", namespace)
        lab.um.__class__ = type("Module", (types.ModuleType,), {"__str__": namespace["__str__"]})
        keys.append(key(lab.f, 1))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize("name", ["__doc__", "__annotations__"])
@pytest.mark.parametrize("thing", ["def g(a: {}): '{}'", "class g:\n    '{}'\n    a: {}"])
def test_what_is_written_about_a_helper_counts_where_it_is_read(load: Load, thing: str, name: str) -> None:
    def keys(reads: str) -> list[str]:
        texts = [thing.format(said, said) for said in ("int", "str")]
        return [key(load(f"{text}\ndef f(x): return {reads}").f, 1) for text in texts]

    one, other = keys(f"g.{name}")
    assert one != other
    one, other = keys("g")
    assert (one == other) == thing.startswith("def")  # a class may be looked at by a decorator


def test_what_is_written_about_a_function_changes_while_it_runs(load: Load) -> None:
    lab = load("def f(x):\n    'one'\n    return f.__doc__")
    before = key(lab.f, 1)
    lab.f.__doc__ = "two"
    assert key(lab.f, 1) != before
    lab.f.__doc__ = "one"
    assert key(lab.f, 1) == before


def test_a_struct_counts_by_its_format(load: Load) -> None:
    text = "import struct\nS = struct.Struct('{}')\ndef f(x): return S.unpack(x)"
    one, same, other = (key(load(text.format(form)).f, b"") for form in ("<i", "<i", "<d"))
    assert one == same != other
    assert value_token(struct.Struct("<i")) == value_token(struct.Struct("<i")) != value_token(struct.Struct("<d"))


@pytest.mark.parametrize("text", ["globals()['G']", "sys.modules['lab']", "inspect.signature(f)", "get_type_hints(f)"])
def test_ways_around_names_are_listed_as_unfollowed(load: Load, text: str) -> None:
    source = f"import inspect, sys\nfrom typing import get_type_hints\ndef f(x): return {text}"
    names = {"globals", "sys.modules", "inspect.signature", "typing.get_type_hints"}
    assert len(names.intersection(unfollowed(load(source).f))) == 1


def test_subclasses_are_listed_as_unfollowed(load: Load) -> None:
    assert unfollowed(load("class C: pass\ndef f(x): return C.__subclasses__()").f) == ["__subclasses__"]


# -- one key for two meanings: values ----------------------------------------------------------------------


def test_tuples_that_have_more() -> None:
    def status(more: float) -> os.stat_result:
        return os.stat_result((*range(10), 1.0, 2.0, more), {"st_mtime_ns": int(more * 10)})

    assert value_token(status(1)) == value_token(status(1)) != value_token(status(2))
    moment = time.struct_time((2020, 1, 1, 0, 0, 0, 0, 1, 0, "CET", 3600))
    assert value_token(moment) != value_token(time.struct_time((2020, 1, 1, 0, 0, 0, 0, 1, 0, "UTC", 0)))


def test_levels_of_an_index() -> None:
    pd = pytest.importorskip("pandas")
    whole = pd.MultiIndex.from_tuples([(1, "a"), (2, "b")])
    assert value_token(whole[:1]) != value_token(whole[:1].remove_unused_levels())


def test_where_fields_lie() -> None:
    np = pytest.importorskip("numpy")
    dtypes = [np.dtype({"names": ["a"], "formats": ["i4"], "offsets": [o], "itemsize": 16}) for o in (0, 4, 8)]
    dtypes.append(np.dtype([(("title", "a"), "i4")]))
    dtypes.append(np.dtype([(("other", "a"), "i4")]))
    assert len({value_token(dtype) for dtype in dtypes}) == len(dtypes)


def test_views_and_weak_references() -> None:
    assert value_token({"a": 1}.items()) == value_token({"a": 1}.items()) != value_token({"a": 2}.items())
    assert value_token({1: 0, 2: 0}.keys()) == value_token({2: 0, 1: 0}.keys())
    cls = type("Mine", (), {"__module__": "__main__"})
    assert value_token(weakref.ref(cls)) == value_token(weakref.ref(cls))


# -- two keys for one meaning ------------------------------------------------------------------------------


def test_a_script_and_the_module_that_it_is(load: Load) -> None:
    text = "import contextlib\n@contextlib.contextmanager\ndef c(): yield 1\ndef f(x):\n with c() as k: return k"
    assert key(load(text).f, 1) == key(load(text, "__main__", keep=False).f, 1)


def test_the_order_of_attributes(load: Load) -> None:
    text = "def g(): return 1\ndef h(): return 2\nclass C: pass\nc = C()\n{}\ndef f(x): return c"
    one, two = (load(text.format(order)).f for order in ("c.a = g; c.b = h", "c.b = h; c.a = g"))
    assert key(one, 1) == key(two, 1)


# -- names that lead elsewhere ---------------------------------------------------------------------------------

NO_TOKEN = [
    "class C:\n def __reduce__(self): raise TypeError('no')\n def m(self): return {0}\nc = C()",
    "import threading\nclass C(threading.local):\n def m(self): return {0}\nc = C()",
    "import io\nclass B(io.FileIO):\n k = {0}\nclass C(B):\n def m(self): return self.k\nc = C('/dev/null')",
]


@pytest.mark.parametrize("text", NO_TOKEN)
def test_an_object_without_a_token_counts_by_the_content_of_its_class(load: Load, text: str) -> None:
    one, same, other = (load(text.replace("{0}", k) + "\ndef f(x): return c.m()") for k in ("1", "1", "2"))
    before = key(one.f, 1)
    assert before == key(same.f, 1) != key(other.f, 1)
    one.C.m = lambda self: 3
    assert key(one.f, 1) not in (before, key(other.f, 1))
    for lab in (one, same, other):
        getattr(lab.c, "close", int)()


LAZY = {
    "module": ("return importlib.import_module('um_part')", "um_attacked.um_part.g()"),
    "function": ("return getattr(importlib.import_module('um_part'), name)", "um_attacked.g()"),
    "class": ("return getattr(importlib.import_module('um_part'), name)", "um_attacked.C().m()"),
}


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("start", ["import um_attacked\ndef f(x):\n", "def f(x):\n import um_attacked\n"])
@pytest.mark.parametrize("case", LAZY)
def test_parts_that_a_module_imports_when_they_are_wanted(load: Load, case: str, start: str, kept: bool) -> None:
    body, wanted = LAZY[case]
    found = body.replace("return", "globals()[name] =") + "; return globals()[name]" if kept else body

    def keys(k: int) -> list[str]:
        load(f"import importlib\ndef __getattr__(name):\n {found}", "um_attacked")
        load(f"def g(): return {k}\nclass C:\n def m(self): return {k}", "um_part")
        lab = load(f"{start} return {wanted}")
        before = key(lab.f, 1)
        assert lab.f(1) == k
        return [before, key(lab.f, 1)]

    assert len({*keys(1), *keys(1)}) == 1
    assert keys(1) != keys(2)


def test_the_warnings_shown_are_as_before_while_a_module_looks_up_a_name(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    """The filters of warnings belong to all threads."""
    load("import warnings\ndef g(): ...\ndef __getattr__(name):\n print(warnings.filters)\n return g", "um_attacked")
    lab = load("import um_attacked\ndef f(x): return um_attacked.h(x)")
    before = str(warnings.filters)
    call_key(lab.f, (1,), {})
    assert capsys.readouterr().out == f"{before}\n"


def test_the_code_that_looks_up_a_name_does_not_run_for_each_key(
    load: Load, capsys: pytest.CaptureFixture[str]
) -> None:
    load("def g(): return 1\ndef h(): return 2", "um_part")
    finder = "def __getattr__(name):\n print(name)\n return getattr(um_part, used())"
    lazy = load(f"import um_part\nchosen = 'g'\ndef used(): return chosen\n{finder}", "um_attacked")
    lab = load("import um_attacked\ndef f(x): return um_attacked.found()")
    first, *others = [key(lab.f, 1) for _ in range(5)]
    assert set(others) == {first}
    assert capsys.readouterr().out == "found\n"
    lazy.chosen = "h"
    second = key(lab.f, 1)
    lazy.um_part.h = lazy.um_part.g
    assert key(lab.f, 1) == first != second
    lazy.um_part = load("def g(): return 1\ndef h(): return 3", "um_part")
    assert key(lab.f, 1) not in (first, second)
    lazy.__getattr__ = lambda name: len if name == "found" else None
    assert key(lab.f, 1) not in (first, second)


def test_only_the_parts_that_are_wanted_are_imported(
    load: Load, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "um_unwanted.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(tmp_path)
    load("def g(): return 1", "um_part")
    finder = "def __getattr__(name):\n if name == 'g':\n  from um_part import g\n  return g\n"
    load(f"{finder} import um_unwanted\n from um_unwanted import h\n return um_unwanted.g", "um_attacked")
    lab = load("import um_attacked\ndef f(x): return um_attacked.g()")
    assert key(lab.f, 1) == key(lab.f, 1)


@pytest.mark.parametrize("error", ["SystemExit", "RuntimeError", "KeyboardInterrupt"])
def test_errors_of_a_module_that_looks_up_a_name(load: Load, error: str) -> None:
    load(f"def __getattr__(name): raise {error}", "um_attacked")
    lab = load("import um_attacked\ndef f(x): return um_attacked.g(x)")
    if error == "KeyboardInterrupt":
        with pytest.raises(KeyboardInterrupt):
            key(lab.f, 1)
    else:
        assert key(lab.f, 1) == key(lab.f, 1)


@pytest.mark.parametrize("from_", ["def f(x):\n import um_attacked\n return um_attacked.k", "{}import k\n return k"])
def test_an_object_in_the_place_of_a_module(load: Load, from_: str) -> None:
    lab, keys = load(from_.replace("{}", "def f(x):\n from um_attacked ")), []
    for k in (1, 2):
        sys.modules["um_attacked"] = types.SimpleNamespace(k=k)  # type: ignore[assignment]
        keys.append(key(lab.f, 1))
    del sys.modules["um_attacked"]
    assert len({*keys, key(lab.f, 1)}) == 3


@pytest.mark.parametrize(
    "text",
    [
        "import colorsys\ndef f(x): return colorsys.rgb_to_hsv(x)",
        "def f(x):\n import colorsys as c\n return c.rgb_to_hsv(x)",
        "def f(x):\n from colorsys import rgb_to_hsv\n return rgb_to_hsv(x)",
        "import xml.dom\ndef f(x): return xml.dom.minidom.parse(x)",
    ],
)
def test_functions_of_a_library_replaced_by_the_users(load: Load, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import colorsys
    import xml.dom.minidom

    lab, first = load(text), key(load(text).f, 1)
    keys = [key(lab.f, 1)]
    for said in ("1", "1", "2"):
        patch = load(f"def g(x): return {said}", "um_attacked")
        monkeypatch.setattr(colorsys, "rgb_to_hsv", patch.g)
        monkeypatch.setattr(xml.dom.minidom, "parse", patch.g)
        keys.append(key(lab.f, 1))
    monkeypatch.undo()
    assert keys[0] == first == key(lab.f, 1)
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


REPLACEMENTS = {
    "partial": "import functools\ndef h(y, *a): return {0}\ng = functools.partial(h, 1)",
    "object": "class C:\n k = {0}\n def __call__(self, *a): return self.k\ng = C()",
    "method": "class C:\n def m(self, *a): return {0}\ng = C().m",
    "cached": "import functools\n@functools.lru_cache\ndef g(*a): return {0}",
    "wrapped": "import contextlib\n@contextlib.contextmanager\ndef g(*a): yield {0}",
    "nested": "import functools\n@functools.lru_cache\ndef h(*a): return {0}\ng = functools.partial(h, 1)",
}


@pytest.mark.parametrize("case", REPLACEMENTS)
def test_replaced_by_an_object_that_calls_code_of_the_users(
    load: Load, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import colorsys

    lab = load("import colorsys\ndef f(x): return colorsys.rgb_to_hsv(x)")
    keys = [key(lab.f, 1)]
    original = {"partial": functools.partial(len), "cached": functools.lru_cache(len), "method": [].append}
    monkeypatch.setattr(colorsys, "rgb_to_hsv", original.get(case, colorsys.rgb_to_hsv))
    assert key(lab.f, 1) == keys[0]  # of a library, even if replaced
    for said in ("1", "1", "2"):
        monkeypatch.setattr(colorsys, "rgb_to_hsv", load(REPLACEMENTS[case].replace("{0}", said), "um_attacked").g)
        keys.append(key(lab.f, 1))
    assert keys[1] == keys[2]
    assert len(set(keys)) == 3


@pytest.mark.parametrize(
    "text",
    [
        "from functools import singledispatch\ndef h(a: {}): ...\ndef f(x): return singledispatch(repr).register(h)(x)",
        "import functools\ndef h(a: {}): return 1\ndef f(x):\n return functools.singledispatch(repr).register(h)(x)",
    ],
)
def test_annotations_that_a_library_reads_for_a_function(load: Load, text: str) -> None:
    assert key(load(text.format("int")).f, 1) != key(load(text.format("str")).f, 1)
