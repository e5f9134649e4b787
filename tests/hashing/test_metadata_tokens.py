"""What is written about a definition counts where code reads it, by whatever way; so does all of a module."""

from __future__ import annotations

import itertools
import sys
import types
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from callyard.hashing.call_key import call_key, surrounding
from callyard.hashing.definition_tokens import has_metadata, token_at, unfollowed

SETTINGS = '''
"""one"""
STEP = 1
TABLE = {"a": [1]}
def tool(a: int) -> str:
    "one"
def __getattr__(name):
    if name == "LATE": return STEP
    raise AttributeError(name)
'''
LAB = """
import functools, inspect, operator, pydoc, sys, typing
from inspect import getdoc as text_of
import attacked_settings as settings

class K:
    "one"
    rate: int = 1
    def method(self, a: int) -> str:
        "one"
    def own(self): return self.__doc__
    def of_class(self): return type(self).__doc__
    def of(self, other): return other.__doc__
    @classmethod
    def by_class(cls): return cls.__doc__
    described = property(lambda self: 1, doc="one")
class Sub(K):
    def above(self): return super().__doc__
def helper(a: int, b: "str" = "") -> str:
    "one"
@functools.wraps(helper)
def wrapped(*args): return helper(*args)
@functools.lru_cache
def cached(x):
    "one"
class Plain:
    "one"
    rate: int = 1
    def method(self, a: int) -> str:
        "one"
class Holder:
    kept = K, helper, settings
    def __init__(self): self.k, self.helper, self.settings = K, helper, settings
    def __getattr__(self, name):
        if name.startswith("_"): raise AttributeError(name)
        return settings.__dict__[name]
holder = Holder()
k, K2, helper2, settings2 = K(), K, helper, settings
TABLE = {"k": K, "helper": helper, "settings": settings}
LIST = [K, helper, settings]
NAME = "__doc__"
doc_of = operator.attrgetter("__doc__")
part = functools.partial(helper, 1)
def reader(x): return x.__doc__
def same(x): return x
def matched(x):
    match x:
        case object(__doc__=found): return found
def imported():
    import attacked_settings as inside
    renamed = inside
    return renamed
"""
CLASS = ("K", "K2", "type(k)", "k.__class__", "k", "TABLE['k']", "LIST[0]", "holder.k", "Holder.kept[0]", "same(K)")
HELPER = ("helper", "helper2", "TABLE['helper']", "LIST[1]", "holder.helper", "part.func", "wrapped.__wrapped__")
MODULE = ("settings", "settings2", "TABLE['settings']", "LIST[2]", "holder.settings", "same(settings)", "imported()")
DOCSTRING = (
    *("{}.__doc__", "getattr({}, '__doc__')", "getattr({}, '__do' + 'c__')", "inspect.getdoc({})", "text_of({})"),
    *("'{{0.__doc__}}'.format({})", "doc_of({})", "reader({})", "matched({})", "(lambda x: x.__doc__)({})"),
    *("[inspect][0].getdoc({})", "[x.__doc__ for x in [{}]]", "object.__getattribute__({}, NAME)"),
)
ANNOTATIONS = ("str({}.__annotations__)", "str(getattr({}, '__annotations__'))", "str(inspect.get_annotations({}))")
SIGNATURE = ("str(inspect.signature({}))", "str(typing.get_type_hints({}))")
VALUE = (
    *("{}.STEP", "{}.__dict__['STEP']", "dict({}.__dict__.items())['STEP']", "{{**{}.__dict__}}['STEP']"),
    *("vars({})['STEP']", "getattr({}, 'STEP')", "{}.__getattribute__('STEP')", "object.__getattribute__({}, 'STEP')"),
    *("operator.attrgetter('STEP')({})", "'{{0.STEP}}'.format({})", "'%(STEP)s' % {}.__dict__", "{}.LATE"),
    *("{}.tool.__globals__['STEP']", "[m.__dict__ for m in [{}]][0]['STEP']"),
)


def _ways(reads: tuple[str, ...], things: tuple[str, ...]) -> list[str]:
    return [read.format(thing) for read, thing in itertools.product(reads, things)]


OF_CLASS = (
    *("k.own()", "k.of_class()", "k.by_class()", "k.of(K)", "Sub().above()", "K.__dict__['__doc__']", "vars(K)[NAME]"),
    *(
        "[c.__doc__ for c in Sub.__mro__]",
        "inspect.getdoc(Sub)",
        "pydoc.getdoc(K)",
        "dict(inspect.getmembers(K))[NAME]",
    ),
)
# What is changed, and the expressions that tell it.
LAWS: dict[str, tuple[str, str, list[str]]] = {
    "docstring of a class": ("lab.K", "__doc__", [*_ways(DOCSTRING, CLASS), *OF_CLASS]),
    "docstring of a function": ("lab.helper", "__doc__", _ways(DOCSTRING, HELPER)),
    "docstring of a method": (
        "lab.K.method",
        "__doc__",
        _ways(DOCSTRING, ("K.method", "k.method", "vars(K)['method']")),
    ),
    "docstring of a property": ("lab.K.described", "__doc__", ["K.described.__doc__", "vars(K)['described'].__doc__"]),
    "docstring of a wrapper": ("lab.wrapped", "__doc__", ["wrapped.__doc__", "reader(wrapped)"]),
    "docstring of what is cached": ("lab.cached", "__doc__", ["cached.__doc__", "reader(cached)"]),
    "docstring of a module": ("settings", "__doc__", [*_ways(DOCSTRING[:-2], MODULE), "settings.__dict__[NAME]"]),
    "docstring in a module": ("settings.tool", "__doc__", [f"{m}.tool.__doc__" for m in MODULE]),
    "annotations of a function": ("lab.helper", "__annotations__", _ways((*ANNOTATIONS, *SIGNATURE), HELPER)),
    "annotations of a class": ("lab.K", "__annotations__", _ways(ANNOTATIONS, CLASS[:2])),
    "name of a function": ("lab.helper", "__name__", _ways(("{}.__name__",), HELPER)),
    "qualified name": ("lab.helper", "__qualname__", _ways(("{}.__qualname__",), HELPER)),
    "module of a function": ("lab.helper", "__module__", _ways(("{}.__module__",), HELPER)),
    "name of a class": ("lab.K", "__name__", ["K.__name__", "type(k).__name__", "k.__class__.__name__"]),
    "qualified name of a class": ("lab.K", "__qualname__", ["K.__qualname__", "type(k).__qualname__"]),
    "name in a module": ("settings", "STEP", [*_ways(VALUE, MODULE), "holder.STEP"]),
    "new name in a module": (
        "settings",
        "NEW",
        _ways(("dir({})", "sorted({}.__dict__)", "hasattr({}, 'NEW')"), MODULE),
    ),
}


@pytest.fixture
def labs(tmp_path: Path) -> Iterator[Callable[[list[str]], tuple[Any, list[Any]]]]:
    def load(name: str, text: str) -> Any:
        module = types.ModuleType(name)
        module.__file__ = str(tmp_path / f"{name}.py")
        sys.modules[name] = module
        exec(compile(text, module.__file__, "exec"), vars(module))
        return module

    def labs(expressions: list[str]) -> tuple[Any, list[Any]]:
        """The module, and a function for each expression."""
        load("attacked_settings", SETTINGS.lstrip())
        functions = "".join(f"def f{i}(*args): return {text}\n" for i, text in enumerate(expressions))
        lab = load("attacked_lab", LAB + functions)
        return lab, [getattr(lab, f"f{i}") for i in range(len(expressions))]

    yield labs
    for name in ("attacked_lab", "attacked_settings"):
        sys.modules.pop(name, None)


def key(function: Callable[..., Any], *args: Any) -> str:
    return call_key(function, args, {}).hex


@pytest.mark.parametrize("law", LAWS)
def test_what_changes_the_result_changes_the_key_or_is_listed(labs: Any, law: str) -> None:
    path, name, expressions = LAWS[law]
    lab, functions = labs(expressions)
    thing: Any = eval(path, {"lab": lab, "settings": lab.settings})
    value, new = getattr(thing, name, None), {"__annotations__": {"a": bytes}, "STEP": 2}.get(name, "two")
    before = [(function(), key(function)) for function in functions]
    setattr(thing, name, new)
    after = [(function(), key(function)) for function in functions]
    for text, function, old, now in zip(expressions, functions, before, after, strict=True):
        assert old[0] != now[0], f"{text} does not tell"
        assert old[1] != now[1] or unfollowed(function), f"{text} is answered with what was true before"
    setattr(thing, name, value) if name != "NEW" else delattr(thing, name)
    assert [key(function) for function in functions] == [old for _, old in before]


FOLLOWED = ("settings.__dict__['STEP']", "k.own()", "reader(K)", "TABLE['k'].__doc__", "helper.__annotations__")


def test_what_counts_is_not_listed(labs: Any) -> None:
    assert [unfollowed(function) for function in labs([*FOLLOWED])[1]] == [[]] * len(FOLLOWED)


LISTED = {
    "__file__": "__file__",
    "settings.__file__": "__file__",
    "helper.__globals__": "__globals__",
    "helper.__code__.co_firstlineno": "co_firstlineno",
    "inspect.getsource(helper)": "inspect.getsource",
    "operator.attrgetter(NAME)(K)": "operator.attrgetter",
    "object.__getattribute__(K, NAME)": "__getattribute__",
    "same(sys)": "sys",
    "globals()['K']": "globals",
    "sys._getframe()": "sys._getframe",
}


@pytest.mark.parametrize("text", LISTED)
def test_what_cannot_be_followed_is_listed(labs: Any, text: str) -> None:
    assert LISTED[text] in unfollowed(labs([text])[1][0])


def test_what_arguments_use_is_listed(labs: Any) -> None:
    _, (function,) = labs(["args[0]()"])
    assert unfollowed(function, lambda: eval("1")) == ["eval"]


def test_where_nothing_reads_it_nothing_of_it_counts(labs: Any) -> None:
    lab, functions = labs(["(Plain, helper, settings.STEP)", "Plain().rate", "cached(1)", "[wrapped(1), part()]"])
    before = [key(function, lab.Plain()) for function in functions]
    for thing in (lab.Plain, lab.Plain.method, lab.helper, lab.wrapped, lab.settings, lab.settings.tool):
        thing.__doc__ = "two"
    lab.helper.__annotations__ = lab.Plain.method.__annotations__ = {"a": bytes}
    assert [key(function, lab.Plain()) for function in functions] == before


def test_docstrings_and_annotations_inside_the_function(labs: Any) -> None:
    text = "def {}(x):\n    def inner(a: {}): '{}'\n    return inner.__doc__, inner.__annotations__\n"
    lab, _ = labs([])
    keys = []
    for annotation, doc in (("int", "a"), ("int", "b"), ("str", "a")):
        exec(text.format("read", annotation, doc), vars(lab))
        keys.append(key(lab.read, 1))
    assert len(set(keys)) == 3


# -- arguments ---------------------------------------------------------------------------------------------


def test_of_arguments(labs: Any) -> None:
    """The function reads it of an argument, or an argument of another one, or of the function."""
    lab, (reads, calls, given) = labs(["args[0].__doc__", "args[0](args[1])", "args[0](helper)"])
    of_class = [lambda: key(reads, lab.k), lambda: key(reads, [lab.K]), lambda: key(calls, lab.reader, lab.k)]
    for ask in (*of_class, lambda: key(lab.K.of, lab.Sub(), lab.k)):
        lab.K.__doc__ = "one"
        before = ask()
        lab.K.__doc__ = "two"
        assert ask() != before
    before = key(given, lab.reader)
    lab.helper.__doc__ = "two"
    assert key(given, lab.reader) != before


def test_of_the_result_of_a_call(labs: Any) -> None:
    lab, (reads, other) = labs(["args[0].__doc__", "args[0]"])
    future: Future[Any] = Future()
    future.set_result(lab.k)
    future.result_token = b"known"  # type: ignore[attr-defined]
    before, unread = key(reads, future), key(other, future)
    lab.K.__doc__ = "two"
    assert key(reads, future) != before
    assert key(other, future) == unread


def test_what_a_class_reads_of_itself_counts_in_its_token(labs: Any) -> None:
    """A result is known by its token alone, so that must say it."""
    from callyard.hashing.values import value_token

    lab, _ = labs([])
    before = value_token(lab.k)
    lab.K.__doc__ = "two"
    assert value_token(lab.k) != before


def test_what_a_worker_imports_is_compared_with_it(labs: Any) -> None:
    lab, _ = labs([])
    before = token_at("attacked_lab", "helper", with_metadata=True)
    assert has_metadata(before)
    assert not has_metadata(token_at("attacked_lab", "helper"))
    lab.helper.__doc__ = "two"
    assert token_at("attacked_lab", "helper", with_metadata=True) != before


def test_of_an_initializer(labs: Any) -> None:
    lab, (initializer, _) = labs(["reader(K)", "K"])
    before, unread = surrounding(initializer), surrounding((lab.helper, 1))
    lab.K.__doc__ = "two"
    assert surrounding(initializer) != before
    assert surrounding((lab.helper, 1)) == unread


def test_the_difference_is_named(labs: Any) -> None:
    lab, (reads,) = labs(["reader(K)"])
    before = call_key(reads, (), {}).ingredients()
    lab.K.__doc__ = "two"
    after = call_key(reads, (), {}).ingredients()
    assert [label for label in before if before[label] != after.get(label)] == ["global attacked_lab.K.__doc__"]


# -- modules that make names when they are asked -----------------------------------------------------------


def test_a_module_that_makes_names(labs: Any) -> None:
    lab, functions = labs(["settings.LATE", "getattr(settings, 'LATE')", "settings.__getattr__('LATE')"])
    before = [key(function) for function in functions]
    lab.settings.__getattr__ = lambda name: 7
    assert not set(before) & {key(function) for function in functions}


def test_a_class_of_modules(labs: Any) -> None:
    lab, functions = labs(["settings.LATE", "settings.STEP"])
    before = [key(function) for function in functions]
    lab.settings.__class__ = type("Lazy", (types.ModuleType,), {"LATE": property(lambda self: self.STEP)})
    after = [key(function) for function in functions]
    lab.settings.STEP = 2
    assert all(len({*keys}) == 3 for keys in zip(before, after, [key(function) for function in functions], strict=True))


def test_a_module_that_fails_when_it_is_asked(labs: Any) -> None:
    lab, functions = labs(["settings.STEP", "dir(settings)", "reader(settings)"])

    def fails(name: str) -> Any:
        raise ZeroDivisionError(name)

    lab.settings.__getattr__ = fails
    assert len({key(function) for function in functions}) == 3
