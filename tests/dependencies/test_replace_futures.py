"""Futures among the arguments: found at any depth, and replaced without touching anything else."""

from __future__ import annotations

import asyncio
import dataclasses
import enum
from collections import Counter, OrderedDict, defaultdict, namedtuple
from concurrent.futures import Future as StandardFuture
from typing import Any, NamedTuple

import hypothesis.strategies as st
import pytest
from hypothesis import given

from callyard.dependencies.replace_futures import find_futures, is_future, replace_futures
from callyard.futures import Future


def done(value: object) -> Future:
    future: Future = Future()
    future.set_result(value)
    return future


def resolved(value: Any) -> Any:
    return replace_futures(value, lambda future: future.result())


Pair = namedtuple("Pair", "left right", defaults=[0])  # noqa: PYI024  # of both kinds  # noqa: PYI024  # users have them


class Typed(NamedTuple):
    left: Any
    right: Any = 0


@dataclasses.dataclass
class Plain:
    left: Any
    right: Any = 0


@dataclasses.dataclass(frozen=True)
class Frozen:
    left: Any
    right: Any = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Slotted:
    left: Any
    right: Any = 0


@dataclasses.dataclass
class Derived:
    left: Any
    right: Any = 0
    late: Any = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        assert not hasattr(self, "late"), "made a second time"
        self.late = [self.left]


PAIRS = [Pair, Typed, Plain, Frozen, Slotted]


# ------------------------------------------------------------------ what is a future


class Foreign:
    """The future of some other library."""

    def __init__(self, value: Any = None) -> None:
        self.value = value

    def result(self, timeout: float | None = None) -> Any:
        return self.value

    def exception(self) -> None: ...
    def done(self) -> bool:
        return True

    def cancelled(self) -> bool:
        return False

    def add_done_callback(self, fn: Any) -> None:
        fn(self)


def test_futures_of_any_library_are_futures():
    assert all(map(is_future, [Future(), StandardFuture(), Foreign()]))
    assert not any(map(is_future, [Future, None, 1, "result", [], Plain(1), StandardFuture]))


def test_the_futures_of_asyncio_are_not_meant():
    async def main() -> bool:
        return is_future(asyncio.get_running_loop().create_future())

    assert asyncio.run(main()) is False


# ------------------------------------------------------------------ one of each kind


CONTAINERS = [
    lambda x: [x],
    lambda x: (x,),
    lambda x: {x},
    lambda x: frozenset([x]),
    lambda x: {"k": x},
    lambda x: {x: "v"},
    lambda x: OrderedDict(k=x),
    lambda x: defaultdict(list, k=x),
    *(lambda x, pair=pair: pair(x) for pair in PAIRS),
]


@pytest.mark.parametrize("make", CONTAINERS)
def test_a_future_in_each_kind_of_container(make):
    future = done(5)
    before = make(future)
    assert find_futures(before) == [future]
    after = resolved(before)
    assert after == make(5)
    assert type(after) is type(before)
    assert find_futures(before) == [future], "the argument itself stays as it was"


@pytest.mark.parametrize("make", CONTAINERS)
def test_a_container_without_futures_stays_the_same_object(make):
    value = make("x")
    assert resolved(value) is value
    assert resolved([value, done(1)])[0] is value


def test_the_factory_of_a_defaultdict_is_kept():
    assert resolved(defaultdict(list, k=done(1)))["other"] == []


def test_the_order_of_a_dict_is_kept():
    assert list(resolved(OrderedDict([("b", done(1)), ("a", 2)]))) == ["b", "a"]


def test_containers_of_the_users_classes_keep_class_and_attributes():
    class Names(dict):
        pass

    class Values(list):
        pass

    class Group(set):
        pass

    for kind, content in [(Names, {"k": done(1)}), (Values, [done(1)]), (Group, {done(1)})]:
        value = kind(content)
        value.unit = "eV"
        after = resolved(value)
        assert type(after) is kind
        assert after.unit == "eV"
        assert find_futures(after) == []
        assert len(find_futures(value)) == 1


def test_other_objects_are_not_looked_into():
    class Other:
        def __init__(self) -> None:
            self.future = done(1)

    assert find_futures([Other(), object(), enum.Enum("E", "A"), Plain]) == []


# ------------------------------------------------------------------ dataclasses


def test_a_dataclass_is_not_made_again():
    """Neither __init__ nor __post_init__ runs a second time, and what they set is kept."""
    value = Derived(1)
    value.late = done(7)
    value.note = "mine"  # type: ignore[attr-defined]
    after = resolved(value)
    assert (after.left, after.late, after.note) == (1, 7, "mine")


def test_a_field_that_was_never_set_stays_unset():
    value = Derived(done(1))
    del value.late
    after = resolved(value)
    assert after.left == 1
    assert not hasattr(after, "late")


# ------------------------------------------------------------------ the same thing twice


def test_a_future_that_is_there_twice_is_found_once():
    future = done(1)
    assert find_futures([future, {"k": future}]) == [future]


def test_a_container_that_is_there_twice_stays_one():
    shared = [done(1)]
    left, right = resolved((shared, {"k": shared}))
    assert left == [1]
    assert right["k"] is left


def test_sharing_at_every_level_costs_nothing():
    value: Any = [done(1)]
    for _ in range(200):
        value = [value, value]
    assert len(find_futures(value)) == 1


def test_a_list_that_contains_itself():
    knot: list[Any] = [1, Plain(2)]
    knot.append(knot)
    assert find_futures(knot) == []
    assert resolved(knot) is knot
    tied: list[Any] = [done(1), knot]
    tied.append(tied)
    after = resolved(tied)
    assert after[0] == 1
    assert after[1] is knot, "it has no future"
    assert after[2] is after


def test_a_tree_whose_nodes_know_their_parent():
    leaf, other = Plain(done(1)), Plain(2)
    root = Plain([leaf, other])
    leaf.right = other.right = root
    after = resolved(root)
    assert find_futures(after) == []
    assert [leaf.left for leaf in after.left] == [1, 2]
    assert all(leaf.right is after for leaf in after.left)
    assert leaf.right is root, "the argument itself stays as it was"


def test_a_tuple_in_a_cycle():
    held: dict[str, Any] = {}
    held["pair"] = (done(1), held)
    after = resolved((held["pair"], held))
    assert after[0][0] == 1
    assert after[0] is after[1]["pair"]
    assert after[0][1] is after[1]


def test_a_structure_deeper_than_the_stack():
    value: Any = ["x"]
    for _ in range(5000):
        value = [value]
    assert find_futures([value, done(1)]) != []
    assert resolved([value, done(1)])[0] is value


# ------------------------------------------------------------------ at any depth


def structures() -> st.SearchStrategy:
    """Functions from what to put in the places to a nested structure."""
    leaves = st.one_of(
        st.integers(0, 9).map(lambda n: lambda put: put(n)),
        st.sampled_from([1, "text", None, 2.5, b"b"]).map(lambda value: lambda put: value),
    )

    def wider(inner: st.SearchStrategy) -> st.SearchStrategy:
        several = st.lists(inner, max_size=4)
        return st.one_of(
            several.map(lambda fs: lambda put: [f(put) for f in fs]),
            several.map(lambda fs: lambda put: tuple(f(put) for f in fs)),
            several.map(lambda fs: lambda put: dict(enumerate(f(put) for f in fs))),
            several.map(lambda fs: lambda put: OrderedDict((str(i), f(put)) for i, f in enumerate(fs))),
            st.lists(st.integers(0, 9), max_size=3).map(lambda ns: lambda put: {put(n) for n in ns}),
            st.lists(st.integers(0, 9), max_size=3).map(lambda ns: lambda put: {put(n): n for n in ns}),
            st.tuples(st.sampled_from(PAIRS), inner, inner).map(
                lambda three: lambda put: three[0](three[1](put), three[2](put))
            ),
        )

    return st.recursive(leaves, wider, max_leaves=20)


@given(structures())
def test_futures_anywhere_are_found_and_replaced_by_their_results(structure):
    futures = {n: done(f"result {n}") for n in range(10)}
    used: set[int] = set()

    def future(n: int) -> Future:
        used.add(n)
        return futures[n]

    value = structure(future)
    assert {id(found) for found in find_futures(value)} == {id(futures[n]) for n in used}
    after = resolved(value)
    assert after == structure(lambda n: f"result {n}")
    assert find_futures(after) == []
    assert (after is value) == (not used)


def test_a_counter_is_a_dict_too():
    after = resolved(Counter({done("a"): 2}))
    assert type(after) is Counter
    assert after == {"a": 2}


def test_a_dataclass_that_is_a_dict_too():
    @dataclasses.dataclass
    class Output(OrderedDict):  # type: ignore[type-arg]  # as some libraries have for the outputs of a model
        loss: Any = None

        def __post_init__(self) -> None:
            self["loss"] = self.loss

    value = Output(done(1.5))
    after = resolved(value)
    assert (after.loss, after["loss"]) == (1.5, 1.5)
    assert find_futures(value) == [value.loss]
