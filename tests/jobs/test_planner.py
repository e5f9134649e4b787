"""From calls to few submissions: what every plan promises, on graphs of any form, and how few they are."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from callyard.jobs.planner import SEPARATE, ArrayDependency, ArrayElement, JobArray, PlannedCall, plan

EARLIER = ("submitted-1", "submitted-2")  # arrays that are there already


# ------------------------------------------------------------------ every plan


@st.composite
def graphs(draw: st.DrawFn) -> list[PlannedCall]:
    """Calls that wait for earlier ones, and for elements that were submitted before."""
    calls: list[PlannedCall] = []
    for _ in range(draw(st.integers(0, 30))):
        earlier = draw(
            st.lists(st.builds(ArrayElement, st.sampled_from(EARLIER), st.integers(0, 3), st.booleans()), max_size=2)
        )
        others = draw(st.lists(st.sampled_from(calls), max_size=3)) if calls else []
        calls.append(PlannedCall(draw(st.sampled_from("ab")), [*others, *earlier]))
    return calls


@st.composite
def layers(draw: st.DrawFn) -> list[PlannedCall]:
    """Layers of calls, each of which waits for one or two in the layer before, most for their counterparts."""
    width = draw(st.integers(1, 12))
    layer = calls = [PlannedCall("a") for _ in range(width)]
    for _ in range(draw(st.integers(1, 3))):
        odd = draw(st.sets(st.integers(0, width - 1), max_size=2))
        layer = [PlannedCall("a", [layer[i]] if i not in odd else [layer[i], layer[i - 1]]) for i in range(width)]
        calls = calls + layer
    return calls


@given(st.one_of(graphs(), layers()), st.integers(1, 7), st.integers(1, 3))
def test_what_every_plan_keeps(calls: list[PlannedCall], most: int, calls_per_job: int) -> None:
    arrays = plan(calls, most, calls_per_job)
    assert_each_call_has_a_place(calls, arrays, calls_per_job)
    assert_no_array_is_too_long(arrays, most, calls_per_job)
    assert_those_to_wait_for_come_first(arrays)
    for array in arrays:
        for call in array.calls:
            assert_what_it_needs_is_waited_for(array, call)
            assert_no_other_failure_ends_it(array, call, calls_per_job)


def assert_each_call_has_a_place(calls: Sequence[PlannedCall], arrays: Sequence[JobArray], calls_per_job: int) -> None:
    placed = [call for array in arrays for call in array.calls]
    assert len(placed) == len(calls)
    assert set(placed) == set(calls)
    for array in arrays:
        numbers = array.numbers or [place // calls_per_job for place in range(len(array.calls))]
        for call, number in zip(array.calls, numbers, strict=True):
            assert call.like == array.like
            assert call.place is not None
            assert call.place[:2] == (array, number)


def assert_no_array_is_too_long(arrays: Sequence[JobArray], most: int, calls_per_job: int) -> None:
    for array in arrays:
        assert 0 < len(array.calls) <= most * calls_per_job
        if array.numbers is not None:
            assert calls_per_job == 1
            assert len(set(array.numbers)) == len(array.numbers)


def assert_those_to_wait_for_come_first(arrays: Sequence[JobArray]) -> None:
    submitted = set(EARLIER)
    for array in arrays:
        assert {after.array for after in array.after} <= submitted
        assert array.needs <= submitted
        submitted.add(array)  # type: ignore[arg-type]


def needed(call: PlannedCall) -> set[ArrayElement]:
    return {other.place if isinstance(other, PlannedCall) else other for other in call.after}  # type: ignore[misc]


def covers(after: ArrayDependency, element: ArrayElement, own: int) -> bool:
    number = own if after.kind == "corresponding" else after.number
    return after.array == element.array and number in (None, element.number)


def assert_what_it_needs_is_waited_for(array: JobArray, call: PlannedCall) -> None:
    assert call.place is not None
    for element in needed(call):
        assert element.array in array.needs
        assert any(covers(after, element, call.place.number) for after in array.after)


def assert_no_other_failure_ends_it(array: JobArray, call: PlannedCall, calls_per_job: int) -> None:
    """Only `any` may name what the call does not take, or what makes several calls, or be said of several calls."""
    assert call.place is not None
    alone = {(element.array, element.number) for element in needed(call) if not element.shared}
    for after in array.after:
        if after.kind != "any":
            assert calls_per_job == 1
            assert (after.array, call.place.number if after.kind == "corresponding" else after.number) in alone


@given(st.one_of(graphs(), layers()), st.integers(1, 7), st.integers(1, 3))
def test_elements_that_are_jobs_of_their_own_wait_for_just_what_they_need(
    calls: list[PlannedCall], most: int, calls_per_job: int
) -> None:
    arrays = plan(calls, most, calls_per_job, separate=True)
    assert_each_call_has_a_place(calls, arrays, calls_per_job)
    assert_no_array_is_too_long(arrays, most, calls_per_job)
    assert_those_to_wait_for_come_first(arrays)
    for array in arrays:
        assert array.after == ()
        for number, after in enumerate(array.after_each):
            together = array.calls[number * calls_per_job : (number + 1) * calls_per_job]
            wanted = {(element.array, element.number) for call in together for element in needed(call)}
            assert {(each.array, each.number) for each in after} == wanted
            assert len(after) == len(wanted)
            assert {each.kind for each in after} <= {"any"}
        assert {each.array for after in array.after_each for each in after} == array.needs


# ------------------------------------------------------------------ how few


def shape(arrays: Sequence[JobArray]) -> list[tuple[int, list[str]]]:
    """Of each array: how many calls, and the kinds of what it waits for."""
    return [(len(array.calls), [after.kind for after in array.after]) for array in arrays]


def alike(count: int, *after: PlannedCall | ArrayElement) -> list[PlannedCall]:
    return [PlannedCall("a", after) for _ in range(count)]


def test_calls_that_wait_for_nothing_are_one_array() -> None:
    assert shape(plan(alike(100), 1000)) == [(100, [])]
    assert shape(plan(alike(100), 30)) == [(30, []), (30, []), (30, []), (10, [])]
    assert plan([], 10) == []


def test_calls_that_ask_for_something_else_are_another_array() -> None:
    assert shape(plan([PlannedCall(i % 2) for i in range(10)], 1000)) == [(5, []), (5, [])]


def test_several_calls_in_a_job() -> None:
    calls = alike(10)
    assert len(plan(calls, 1000, 4)) == 1
    assert [call.place.number for call in calls if call.place] == [0] * 4 + [1] * 4 + [2] * 2
    assert shape(plan(alike(10), 2, 4)) == [(8, []), (2, [])]


def test_element_by_element() -> None:
    layer = calls = alike(50)
    for _ in range(9):
        layer = [PlannedCall("a", [before]) for before in layer]
        calls = calls + layer
    assert shape(plan(calls, 1000)) == [(50, []), *([(50, ["corresponding"])] * 9)]
    assert shape(plan(calls, 25)) == [*([(25, [])] * 2), *([(25, ["corresponding"])] * 18)]


def test_fan_out() -> None:
    first = PlannedCall("a")
    assert shape(plan([first, *alike(100, first)], 1000)) == [(1, []), (100, ["ok"])]


def test_fan_in() -> None:
    first = alike(20)
    assert shape(plan([*first, PlannedCall("a", first)], 1000)) == [(20, []), (1, ["ok"] * 20)]


def test_a_join_of_many() -> None:
    first = alike(200)
    assert shape(plan([*first, PlannedCall("a", first)], 1000)) == [(200, []), (1, ["any"])]


def test_several_for_each() -> None:
    """Three calls for each of fifty: three arrays, element by element."""
    first = alike(50)
    calls = [*first, *(call for before in first for call in alike(3, before))]
    assert shape(plan(calls, 1000)) == [(50, []), *([(50, ["corresponding"])] * 3)]


def test_many_for_each_of_two() -> None:
    """A row of two is hardly an array: what is left waits for one element each."""
    first = alike(2)
    calls = [*first, *alike(100, first[0]), *alike(100, first[1])]
    assert shape(plan(calls, 1000)) == [(2, []), *([(2, ["corresponding"])] * 2), *([(98, ["ok"])] * 2)]


def test_neighbours() -> None:
    """Too many different sets of inputs to be exact: one array after the whole one before."""
    first = alike(50)
    calls = [*first, *(PlannedCall("a", [first[i], first[i - 1]]) for i in range(50))]
    assert shape(plan(calls, 1000)) == [(50, []), (50, ["any"])]


def test_after_a_job_of_several_calls_whatever_comes_of_them() -> None:
    shared = [ArrayElement("submitted-1", number, shared=True) for number in range(3)]
    assert shape(plan(alike(2, shared[0]), 1000)) == [(2, ["any"])]
    assert shape(plan([PlannedCall("a", [element]) for element in shared], 1000)) == [(1, ["any"])] * 3


@given(st.lists(st.integers(0, 19), max_size=200), st.booleans())
def test_a_layer_takes_few_arrays(parents: list[int], elsewhere: bool) -> None:
    """Of n calls that each wait for one of an array, however these are spread: at most the root of n, and some."""
    first = alike(20)
    found = plan([*first, *(PlannedCall("a", [first[parent]]) for parent in parents)], 1000)
    assert len(found) <= 1 + math.sqrt(len(parents)) + SEPARATE


@pytest.mark.parametrize("count", [2_000, 20_000])
def test_time_in_proportion_to_the_number_of_calls(count: int) -> None:
    """No clock: what is asked of each call is counted."""
    asked = 0

    class Counted(PlannedCall):
        def __hash__(self) -> int:
            nonlocal asked
            asked += 1
            return id(self)

    layer = calls = [Counted("a") for _ in range(20)]
    while len(calls) < count:
        layer = [Counted("a", [layer[i], layer[i - 1]]) for i in range(20)]
        calls = [*calls, *islice(layer, count - len(calls))]
    plan(calls, 1000)
    assert asked <= 10 * count


def test_a_layer_is_one_array_where_elements_are_jobs_of_their_own() -> None:
    first = alike(100)
    second = [PlannedCall("a", [first[i], first[(7 * i + 3) % 100]]) for i in range(100)]
    arrays = plan([*first, *second], 1000, separate=True)
    assert [len(array.calls) for array in arrays] == [100, 100]
    assert [len(after) for after in arrays[1].after_each] == [2] * 100
