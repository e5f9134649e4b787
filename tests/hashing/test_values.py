"""Values mean their type and content: however they are built, and nothing else has their token."""

from __future__ import annotations

import array
import copy
import datetime as dt
import decimal
import enum
import fractions
import functools
import itertools
import logging
import operator
import pathlib
import pickle
import re
import subprocess
import sys
import threading
import types
import uuid
from collections import ChainMap, Counter, OrderedDict, defaultdict, deque, namedtuple
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.hashing.digest import LONGEST, UnkeyableError, combine, content, token
from callyard.hashing.encoder import register
from callyard.hashing.values import value_token

# -- laws --------------------------------------------------------------------------------------------------

text = st.text(st.characters(), max_size=60)  # surrogates too
atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=-(1 << 300), max_value=1 << 300),
    st.floats(allow_nan=False),
    st.complex_numbers(allow_nan=False),
    text,
    st.binary(max_size=60),
    st.just(...),
    st.dates(),
    st.decimals(allow_nan=False),
    st.ranges() if hasattr(st, "ranges") else st.builds(range, st.integers(-5, 5)),
)
hashables = st.recursive(atoms, lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3), max_leaves=5)


def _containers(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.one_of(
        st.lists(inner, max_size=4),
        st.lists(inner, max_size=4).map(tuple),
        st.dictionaries(hashables, inner, max_size=4),
        st.sets(hashables, max_size=4),
        st.frozensets(hashables, max_size=4),
        st.lists(inner, max_size=4).map(deque),
        st.builds(functools.partial, st.just(operator.add), inner),
        st.builds(lambda x, y: types.SimpleNamespace(x=x, y=y), inner, inner),
    )


values = st.recursive(atoms, _containers, max_leaves=12)


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same in type and content, as the laws mean it."""
    if type(one) is not type(other):
        return False
    if isinstance(one, (list, tuple, deque)):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict):
        return len(one) == len(other) and all(
            any(alike(k, j) and alike(v, w) for j, w in other.items()) for k, v in one.items()
        )
    if isinstance(one, (set, frozenset)):
        return len(one) == len(other) and all(any(alike(v, w) for w in other) for v in one)
    if isinstance(one, types.SimpleNamespace):
        return alike(vars(one), vars(other))
    if isinstance(one, functools.partial):
        return alike(one.args, other.args)
    if isinstance(one, (float, complex, decimal.Decimal)):
        return repr(one) == repr(other)  # -0.0 is not 0.0
    if isinstance(one, range):
        return (one.start, one.stop, one.step) == (other.start, other.stop, other.step)
    return bool(one == other)


def shuffled(value: Any) -> Any:
    """The same, built the other way round and with nothing shared."""
    if isinstance(value, dict):
        return {shuffled(k): shuffled(v) for k, v in reversed(value.items())}
    if isinstance(value, (set, frozenset)):
        made: set[Any] = set()
        for part in reversed([*value]):
            made.add(shuffled(part))
        return type(value)(made)
    if isinstance(value, (list, tuple, deque)):
        return type(value)([shuffled(part) for part in value])
    if isinstance(value, str):
        return "".join([*value])  # not the interned one
    if isinstance(value, types.SimpleNamespace):
        found = vars(value)
        return types.SimpleNamespace(**{name: shuffled(found[name]) for name in reversed(found)})
    return value


@given(values)
def test_built_in_another_way(value: Any) -> None:
    assert value_token(shuffled(value)) == value_token(value)


@given(values)
def test_copied(value: Any) -> None:
    assert value_token(copy.deepcopy(value)) == value_token(value)


@given(values)
def test_pickled(value: Any) -> None:
    assert value_token(pickle.loads(pickle.dumps(value))) == value_token(value)


@given(values)
def test_shared_or_copied(value: Any) -> None:
    assert value_token([value, value, (value,)]) == value_token([value, copy.deepcopy(value), (copy.deepcopy(value),)])


@given(values, values)
def test_only_what_is_alike_has_one_token(one: Any, other: Any) -> None:
    assert (value_token(one) == value_token(other)) == alike(one, other)


@given(values)
def test_the_same_twice(value: Any) -> None:
    assert value_token(value) == value_token(value)


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_no_content_looks_like_a_digest(one: bytes, other: bytes) -> None:
    long = content(b"b", memoryview(one + bytes(1 << 15)))
    assert len(long) > LONGEST
    assert (token(b"b", one) == token(b"b", other)) == (one == other)
    assert (combine(b"b", [one, other]) == combine(b"b", [one + other])) is False
    assert value_token(long[1:]) != value_token(one + bytes(1 << 15))


class E(enum.Enum):
    ONE = 1
    TWO = 2


class Flag(enum.Flag):
    A = 1
    B = 2


class IntE(enum.IntEnum):
    ONE = 1


@dataclass
class Data:
    x: Any = 1
    y: Any = field(default_factory=list)


@dataclass(frozen=True)
class Frozen:
    x: Any = 1


@dataclass
class OtherData:
    x: Any = 1
    y: Any = field(default_factory=list)


Named = namedtuple("Named", "a b")  # noqa: PYI024
OtherNamed = namedtuple("OtherNamed", "a b")  # noqa: PYI024


class Plain:
    def __init__(self, **state: Any) -> None:
        vars(self).update(state)

    def method(self) -> None: ...

    def other(self) -> None: ...


class Slotted:
    __slots__ = ("a", "b")

    def __init__(self, a: Any, b: Any = None) -> None:
        self.a = a
        if b is not None:
            self.b = b


class Both(Slotted):
    """With slots and a dict."""


class Getstate(Plain):
    def __getstate__(self) -> Any:
        return {"x": vars(self)["x"]}


class Reduced(Plain):
    def __reduce__(self) -> Any:
        return Reduced, (), {"x": vars(self)["x"]}


class Mylist(list):  # type: ignore[type-arg]
    pass


class Mydict(dict):  # type: ignore[type-arg]
    pass


class Mystr(str):
    __slots__ = ()


class Myint(int):
    pass


def _with(value: Any, **attributes: Any) -> Any:
    vars(value).update(attributes)
    return value


def function(x: Any) -> Any:
    return x


def other_function(x: Any) -> Any:
    return x + 1


# All of these differ from each other; each is built twice.
DIFFERENT: list[Any] = [
    *(lambda: None, lambda: True, lambda: False, lambda: 1, lambda: 0, lambda: 1.0, lambda: 0.0, lambda: -0.0),
    *(lambda: 1 + 0j, lambda: complex(0, -0.0), lambda: complex(0, 0), lambda: 1 << 63, lambda: -(1 << 63)),
    *(lambda: 1 << 64, lambda: -(1 << 64), lambda: 10**400, lambda: 10**400 + 1, lambda: float("inf")),
    *(lambda: float("nan"), lambda: ..., lambda: NotImplemented, lambda: "", lambda: b"", lambda: "1", lambda: b"1"),
    *(lambda: "N", lambda: "a" * 100, lambda: b"a" * 100, lambda: "\ud800", lambda: "\udfff", lambda: "é"),
    *(lambda: "e\u0301", lambda: "\0", lambda: "\0\0", lambda: bytearray(b"1"), lambda: memoryview(b"1")),
    *(list, lambda: (), dict, lambda: set(), lambda: frozenset(), lambda: [None], lambda: [[]]),
    *(lambda: [1], lambda: (1,), lambda: {1}, lambda: frozenset([1]), lambda: {1: None}, lambda: {None: 1}),
    *(lambda: ["a", "b"], lambda: ["ab"], lambda: [["a"], "b"], lambda: ["a", ["b"]], lambda: [["a", "b"]]),
    *(lambda: {"a": "b", "c": "d"}, lambda: {"a": "d", "c": "b"}, lambda: {"a": None}, lambda: {"a": {}}),
    *(lambda: {1: 2, 3: 4}, lambda: {1: 4, 3: 2}, lambda: {(1, 2): 3}, lambda: {1: (2, 3)}, lambda: {"1": 2, 3: 4}),
    *(lambda: {True: 1}, lambda: {1: 1}, lambda: {1.0: 1}, lambda: {frozenset([1]): 1}, lambda: {(1,): 1}),
    *(lambda: OrderedDict(a=1, b=2), lambda: OrderedDict(b=2, a=1), lambda: {"a": 1, "b": 2}),
    *(lambda: defaultdict(list, a=1), lambda: defaultdict(set, a=1), lambda: defaultdict(None, a=1)),
    *(lambda: Counter("aab"), lambda: Counter("ab"), lambda: deque([1]), lambda: deque([1], 5), lambda: deque([1], 6)),
    *(lambda: ChainMap({1: 2}, {3: 4}), lambda: types.MappingProxyType({1: 2}), lambda: types.MappingProxyType({1: 3})),
    *(lambda: range(3), lambda: range(0, 3, 2), lambda: slice(3), lambda: slice(0, 3), lambda: array.array("i", [1])),
    *(lambda: array.array("l", [1]), lambda: array.array("i", [2])),
    *(lambda: E.ONE, lambda: E.TWO, lambda: Flag.A, lambda: Flag.A | Flag.B, lambda: IntE.ONE, lambda: E, lambda: IntE),
    *(lambda: Data(), lambda: Data(2), lambda: Data(y=[1]), lambda: OtherData(), lambda: Frozen(), lambda: Frozen(2)),
    *(
        lambda: Data,
        lambda: OtherData,
        lambda: Named(1, 2),
        lambda: Named(2, 1),
        lambda: OtherNamed(1, 2),
        lambda: Named,
    ),
    *(lambda: Plain(), lambda: Plain(x=1), lambda: Plain(y=1), lambda: Plain(x=[1]), lambda: Getstate(x=1, y=3)),
    *(lambda: Reduced(x=1, y=2), lambda: Reduced(x=2), lambda: Slotted(1), lambda: Slotted(1, 2), lambda: Both(1)),
    *(lambda: _with(Both(1), c=2), lambda: Mylist([1]), lambda: _with(Mylist([1]), c=2), lambda: Mydict(a=1)),
    *(lambda: Mystr("1"), lambda: Myint(1), lambda: Plain(x=1).method, lambda: Plain(x=2).method),
    *(lambda: Plain(x=1).other, lambda: Plain.method, lambda: Plain.other, lambda: function, lambda: other_function),
    *(
        lambda: functools.partial(function),
        lambda: functools.partial(function, 1),
        lambda: functools.partial(function, x=1),
    ),
    *(
        lambda: functools.partial(other_function, 1),
        lambda: functools.update_wrapper(functools.partial(function, 1), len),
    ),
    *(lambda: functools.update_wrapper(functools.partial(function, 2), len), lambda: len, lambda: str.upper),
    *(lambda: "a".upper, lambda: "b".upper, lambda: [1].append, lambda: dict.fromkeys, lambda: int, lambda: type),
    *(lambda: operator.itemgetter(1), lambda: operator.itemgetter(2), lambda: operator.attrgetter("a")),
    *(lambda: dt.date(2020, 1, 1), lambda: dt.datetime(2020, 1, 1), lambda: dt.timedelta(1)),  # noqa: DTZ001  # noqa: DTZ001
    *(lambda: dt.datetime(2020, 1, 1, tzinfo=dt.timezone.utc), lambda: dt.timezone.utc),
    *(lambda: dt.datetime(2020, 1, 1, fold=1), lambda: dt.time(1), lambda: decimal.Decimal("1.0")),  # noqa: DTZ001  # noqa: DTZ001
    *(
        lambda: decimal.Decimal("1.00"),
        lambda: decimal.Decimal(1),
        lambda: fractions.Fraction(1),
        lambda: uuid.UUID(int=1),
    ),
    *(lambda: pathlib.PurePosixPath("a/b"), lambda: pathlib.Path("a/b"), lambda: pathlib.Path("a/c")),
    *(lambda: pathlib.PureWindowsPath("a/b"), lambda: re.compile("a"), lambda: re.compile("a", re.IGNORECASE)),
    *(lambda: re.compile(b"a"), lambda: list[int], lambda: list[str], lambda: dict[int, str], lambda: int | str),
    *(lambda: logging.getLogger("a"), lambda: logging.getLogger("b"), lambda: ValueError("a"), lambda: ValueError("b")),
    *(lambda: KeyError("a"), lambda: types.SimpleNamespace(a=1), lambda: types.SimpleNamespace(b=1)),
    *(lambda: iter([1, 2]), lambda: object(), lambda: pickle, lambda: logging, lambda: property(function)),
    *(lambda: property(other_function), lambda: staticmethod(function), lambda: classmethod(function)),
]


def test_each_value_has_a_token_of_its_own() -> None:
    found: dict[bytes, Any] = {}
    for make in DIFFERENT:
        made = value_token(make())
        assert made not in found, (make(), found[made])
        found[made] = make()
        assert value_token(make()) == made, make()
        assert value_token([make()]) == value_token([make()])


def test_equal_paths_are_built_in_many_ways() -> None:
    ways = [pathlib.Path("a") / "b", pathlib.Path("a", "b"), pathlib.Path("a//b"), pathlib.Path("a/./b")]
    assert {value_token(way) for way in ways} == {value_token(pathlib.Path("a/b"))}


def test_the_order_of_attributes_does_not_count() -> None:
    assert value_token(Plain(x=1, y=2)) == value_token(Plain(y=2, x=1))


def test_keys_that_are_classes_functions_and_members_in_any_order() -> None:
    pairs = [
        (E.ONE, 1),
        (E.TWO, 2),
        (Plain, 3),
        (function, 4),
        (len, 5),
        ((E.ONE, Plain), 6),
        (Frozen(1), 7),
        (Frozen(2), 8),
    ]
    assert value_token(dict(pairs)) == value_token(dict(reversed(pairs)))


# -- what contains itself ----------------------------------------------------------------------------------


def _cycle(value: Any = 1) -> list[Any]:
    found: list[Any] = [value]
    found.append({"me": found})
    return found


def test_what_contains_itself() -> None:
    assert value_token(_cycle()) == value_token(_cycle()) == value_token(pickle.loads(pickle.dumps(_cycle())))
    assert value_token(_cycle()) != value_token(_cycle(2))
    assert value_token([_cycle(), _cycle()]) == value_token([_cycle()] * 2)
    one: list[Any] = []
    one.append(one)
    two: list[Any] = [[]]
    two[0].append(two)
    assert value_token(one) != value_token([[]])
    assert value_token(one) != value_token(two)  # which may differ, as they print alike and are not built alike


def test_a_doubly_linked_list_and_a_complete_graph() -> None:
    def linked(n: int) -> Plain:
        nodes = [Plain(i=i) for i in range(n)]
        for a, b in itertools.pairwise(nodes):
            a.next, b.before = b, a  # type: ignore[attr-defined]
        return nodes[0]

    def complete(n: int, odd: int = 0) -> list[Plain]:
        nodes = [Plain(i=i) for i in range(n)]
        for node in nodes:
            node.others = nodes  # type: ignore[attr-defined]
        nodes[3].i = odd  # type: ignore[attr-defined]
        return nodes

    assert value_token(linked(40)) == value_token(linked(40))
    assert value_token(linked(40)) != value_token(linked(41))
    assert value_token(complete(200)) == value_token(complete(200))
    assert value_token(complete(200)) != value_token(complete(200, 1))


def test_a_graph_in_sets() -> None:
    def graph() -> list[Plain]:
        nodes = [Plain(name=str(i)) for i in range(20)]
        for i, node in enumerate(nodes):
            node.near = {nodes[i - 1], nodes[i - 7]}  # type: ignore[attr-defined]
        return nodes

    assert value_token(graph()) == value_token(graph())


def test_what_is_shared_often_is_looked_at_once() -> None:
    value: Any = [Plain(x=1)]
    for _ in range(100):
        value = [value, value]
    frozen: Any = frozenset()
    for _ in range(40):
        frozen = frozenset([frozen, (frozen,)])
    key: Any = (1,)
    for _ in range(40):
        key = (key, key)
    assert value_token((value, frozen)) != value_token((frozen, value))
    with pytest.raises(RecursionError):
        for _ in range(100_000):
            value = [value]
        value_token(value)


# -- what has no meaning -----------------------------------------------------------------------------------


def test_what_has_no_meaning_is_named_with_its_place(tmp_path: pathlib.Path) -> None:
    with open(tmp_path / "file", "w") as file, subprocess.Popen([sys.executable, "-c", ""]) as process:
        for value in (file, threading.Lock(), (i for i in "a"), process, sys._getframe()):
            with pytest.raises(UnkeyableError) as caught:
                value_token({"a": [1, Plain(deep=(value,))]})
            assert caught.value.path == "['a'][1].deep[0]" or isinstance(value, subprocess.Popen)
            assert caught.value.kind == type(value).__qualname__ or isinstance(value, subprocess.Popen)


class Taught:
    def __init__(self, x: Any) -> None:
        self.x = x
        self.lock = threading.Lock()


class Inherits(Taught):
    pass


def test_a_type_can_be_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.hashing.encoder._registered", {})
    with pytest.raises(UnkeyableError):
        value_token(Taught(1))
    register(Taught, lambda value: value.x)
    assert value_token([Taught(1)]) == value_token([Taught(1)]) != value_token([Taught(2)])
    assert value_token(Inherits(1)) == value_token(Inherits(1)) != value_token(Taught(1))
    assert value_token(Taught(1)) != value_token(1)
    register(list, len)
    assert value_token([1]) == value_token([2]) != value_token([1, 2])


def test_what_cannot_be_taught(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("callyard.hashing.encoder._registered", {})
    for kind in (int, str, type(None), object):
        with pytest.raises(TypeError, match="cannot be changed"):
            register(kind, repr)
    with pytest.raises(TypeError, match="wants a type and a function"):
        register("int", repr)  # type: ignore[arg-type]
    register(Taught, lambda value: value)
    with pytest.raises(UnkeyableError, match="returns the value itself"):
        value_token(Taught(1))


class Strange:
    def __reduce__(self) -> Any:
        raise RuntimeError("no")


def test_an_object_whose_state_cannot_be_had() -> None:
    with pytest.raises(UnkeyableError, match="no"):
        value_token(Strange())


def test_threads_at_once() -> None:
    found: set[bytes] = set()
    start = threading.Barrier(4)

    def work() -> None:
        start.wait()
        for _ in range(20):
            found.add(value_token([Plain(x=_cycle()), Data, function, E.ONE, Named(1, 2)]))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1
