"""The planner of the job arrays: few arrays for many calls, without I/O.

Calls with the same resources and the same kind of dependencies are one job array. There are four kinds:

    none                                         an array
    all of them for the same calls               an array after these (`ok`)
    each for its counterpart in the same arrays  an array, element by element (`corresponding`)
    anything else, with many such calls          one array after whole arrays (`any`): a call may then begin later than
                                                 necessary, but a failure of others does not end it

A job checks the inputs itself, whatever the scheduler thinks. So `any` is enough, and `any` is necessary where several
calls share a job, because the failure of one is not the failure of the others.

Where the elements of an array are jobs of their own (`Site.separate`), each waits for exactly the jobs with its inputs,
and the calls of a layer with the same resources are always one array.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Generic, NamedTuple, TypeVar

__all__ = ["SEPARATE", "ArrayDependency", "ArrayElement", "JobArray", "PlannedCall", "plan"]

SEPARATE = 8  # arrays for the exact dependencies of one layer, at most; with more, one array waits for all
_TERMS = 64  # elements to name one by one, at most; with more, the whole array is named


class ArrayElement(NamedTuple):
    """A call that is submitted, now or soon: the array, and the number of the element.

    `shared` elements make other calls, too, and so may fail although this call does not.
    """

    array: Hashable
    number: int
    shared: bool = False


@dataclass(eq=False)
class PlannedCall:
    """A call to become a job. `after` has calls of this plan, or elements of earlier submissions."""

    like: Hashable  # calls with equal values here may be in one array
    after: Sequence[PlannedCall | ArrayElement] = ()
    place: ArrayElement | None = None  # set by the plan


class ArrayDependency(NamedTuple):
    """A dependency of an array: another array, or one element of it."""

    kind: str  # "ok", "any", "corresponding"
    array: Hashable
    number: int | None = None


C = TypeVar("C", bound=PlannedCall)


@dataclass(eq=False)
class JobArray(Generic[C]):
    """A job array to be submitted. `numbers` are the elements' numbers; None: one after the other, from the first."""

    like: Hashable
    calls: list[C]
    after: tuple[ArrayDependency, ...] = ()
    numbers: list[int] | None = None
    needs: set[Hashable] = field(default_factory=set)
    after_each: list[list[ArrayDependency]] = field(default_factory=list)  # of each element, where these are separate


def plan(
    calls: Sequence[C], most: int, calls_per_job: int = 1, *, separate: bool = False, first: int = 0
) -> list[JobArray[C]]:
    """Return arrays of at most `most` elements each, in an order that permits their submission.

    With `separate`, their elements are jobs of their own. `first` is the smallest number of an element.
    """
    arrays: list[JobArray[C]] = []
    for layer in _layers(calls):
        for group in _alike(layer):
            if separate:
                parts = _split(JobArray(group[0].like, group), most * calls_per_job, calls_per_job, first)
                arrays.extend(_each_after_its_own(part, calls_per_job) for part in parts)
                continue
            for array in _arrays(group, calls_per_job):
                arrays.extend(_split(array, most * calls_per_job, calls_per_job, first))
    return arrays


def _layers(calls: Iterable[C]) -> list[list[C]]:
    """Return calls by the longest way to each from calls that wait for none of the others."""
    depth: dict[PlannedCall, int] = {}
    layers: dict[int, list[C]] = defaultdict(list)
    for call in calls:  # in the order of submission, so that a call comes after all inputs
        depth[call] = 1 + max(
            (depth.get(other, -1) for other in call.after if isinstance(other, PlannedCall)), default=-1
        )
        layers[depth[call]].append(call)
    return [layers[number] for number in sorted(layers)]


def _alike(layer: Iterable[C]) -> list[list[C]]:
    groups: dict[Hashable, list[C]] = defaultdict(list)
    for call in layer:
        groups[call.like].append(call)
    return list(groups.values())


def _elements(call: PlannedCall) -> frozenset[ArrayElement]:
    places = (other.place if isinstance(other, PlannedCall) else other for other in call.after)
    return frozenset(place for place in places if place is not None)


def _each_after_its_own(array: JobArray[C], calls_per_job: int) -> JobArray[C]:
    """Note for each element of an array which jobs its calls need."""
    firsts = range(0, len(array.calls), calls_per_job)
    needed = [
        frozenset[ArrayElement]().union(*map(_elements, array.calls[first : first + calls_per_job])) for first in firsts
    ]
    array.needs = {element.array for elements in needed for element in elements}
    array.after_each = [
        list(dict.fromkeys(ArrayDependency("any", each.array, each.number) for each in sorted(elements, key=_number)))
        for elements in needed
    ]
    return array


def _arrays(calls: list[C], calls_per_job: int) -> list[JobArray[C]]:
    """Return calls of one layer with the same resources as arrays."""
    sets: dict[frozenset[ArrayElement], list[C]] = defaultdict(list)
    for call in calls:
        sets[_elements(call)].append(call)
    free = sets.pop(frozenset(), [])
    arrays = [JobArray(free[0].like, free)] if free else []
    if calls_per_job == 1:
        arrays.extend(_side_by_side(sets))
        if len(sets) <= SEPARATE:
            return [*arrays, *(_after_the_same(elements, group) for elements, group in sets.items())]
    rest = [call for group in sets.values() for call in group]
    return [*arrays, *([_after_all(rest)] if rest else [])]


def _after_the_same(elements: frozenset[ArrayElement], calls: list[C]) -> JobArray[C]:
    dependencies = [
        ArrayDependency("any" if shared else "ok", array, number)
        for array, number, shared in sorted(elements, key=_number)
    ]
    if len(dependencies) > _TERMS:
        return _after_all(calls)
    return JobArray(calls[0].like, calls, tuple(dependencies), needs={element.array for element in elements})


def _side_by_side(sets: dict[frozenset[ArrayElement], list[C]]) -> list[JobArray[C]]:
    """Return arrays of calls that wait each for a counterpart, and take the calls out of `sets`."""
    pairs: dict[frozenset[Hashable], list[tuple[int, frozenset[ArrayElement]]]] = defaultdict(list)
    for elements in sets:
        numbers = {element.number for element in elements}
        if len(numbers) == 1 and not any(element.shared for element in elements):
            pairs[frozenset(element.array for element in elements)].append((numbers.pop(), elements))
    return [row for arrays, found in pairs.items() for row in _rows(arrays, sorted(found, key=_first), sets)]


def _first(pair: tuple[int, object]) -> int:
    return pair[0]


def _rows(
    arrays: frozenset[Hashable],
    pairs: list[tuple[int, frozenset[ArrayElement]]],
    sets: dict[frozenset[ArrayElement], list[C]],
) -> Iterator[JobArray[C]]:
    """Yield arrays of calls, several of which may wait for the same counterpart: the first of each, the second ...

    This goes on as long as a row is wider than the number of rows before it, so n calls make at most the root of n
    rows.
    """
    after = tuple(ArrayDependency("corresponding", array) for array in arrays)
    for many in count(1):
        pairs = [(number, elements) for number, elements in pairs if elements in sets]
        if len(pairs) < max(many, 2):  # one call alone is no row
            return
        calls = [sets[elements].pop(0) for _, elements in pairs]
        yield JobArray(calls[0].like, calls, after, [number for number, _ in pairs], set(arrays))
        for _, elements in pairs:
            if not sets[elements]:
                del sets[elements]


def _after_all(calls: list[C]) -> JobArray[C]:
    arrays = dict.fromkeys(element.array for call in calls for element in sorted(_elements(call), key=_number))
    return JobArray(calls[0].like, calls, tuple(ArrayDependency("any", array) for array in arrays), needs=set(arrays))


def _number(element: ArrayElement) -> int:
    return element.number


def _split(array: JobArray[C], most: int, calls_per_job: int, first: int) -> list[JobArray[C]]:
    """Return arrays of at most `most` calls, and note at each call its place."""
    parts = []
    for start in range(0, len(array.calls), most):
        calls = array.calls[start : start + most]
        numbers = None if array.numbers is None else array.numbers[start : start + most]
        part = JobArray(array.like, calls, array.after, numbers, array.needs)
        for place, call in enumerate(calls):
            number = first + place // calls_per_job if numbers is None else numbers[place]
            call.place = ArrayElement(part, number, calls_per_job > 1)
        parts.append(part)
    return parts
