"""`max_workers` over all arrays of an executor, kept by throttles and dependencies alone, whatever becomes of jobs."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from callyard.jobs.planner import ArrayDependency
from callyard.jobs.throttle import ArrayThrottle, LaneThrottle


@dataclass
class Array:
    """An array as a scheduler has it."""

    name: str
    waits: set[int]
    after: tuple[ArrayDependency, ...]
    runs: set[int] = field(default_factory=set)
    ends: dict[int, bool] = field(default_factory=dict)  # whether it ended well


class Scheduler:
    """Knows throttles and dependencies, as Slurm does."""

    def __init__(self, throttle: int) -> None:
        self.throttle, self.arrays = throttle, dict[str, Array]()

    def submit(self, name: str, elements: int, after: tuple[ArrayDependency, ...]) -> None:
        assert all(each.array in self.arrays for each in after)
        self.arrays[name] = Array(name, set(range(elements)), after)

    def left(self, name: str) -> int:
        return len(self.arrays[name].waits) + len(self.arrays[name].runs)

    def running(self) -> int:
        return sum(len(array.runs) for array in self.arrays.values())

    def startable(self) -> list[tuple[Array, int]]:
        arrays = [array for array in self.arrays.values() if len(array.runs) < self.throttle]
        return [(array, number) for array in arrays for number in sorted(array.waits) if self._may_start(array, number)]

    def _may_start(self, array: Array, number: int) -> bool:
        return all(self._is_over(after, number) for after in array.after)

    def _is_over(self, after: ArrayDependency, number: int) -> bool:
        array = self.arrays[after.array]  # type: ignore[index]
        if after.kind == "corresponding":
            return array.ends.get(number, False)
        return not (array.waits or array.runs) if after.number is None else after.number in array.ends

    def cancel_hopeless(self) -> None:
        """What follows an element that has failed never begins."""
        for array in self.arrays.values():
            for after in array.after:
                if after.kind == "corresponding":
                    ends = self.arrays[after.array].ends  # type: ignore[index]
                    for number in [number for number in array.waits if ends.get(number) is False]:
                        self.end(array, number, False)

    def end(self, array: Array, number: int, well: bool) -> None:
        array.waits.discard(number)
        array.runs.discard(number)
        array.ends[number] = well


@settings(max_examples=300, deadline=None)
@given(st.integers(0, 1 << 32), st.integers(1, 6))
def test_never_more_at_once_and_never_stuck(seed: int, most: int) -> None:
    """A scheduler that is as nasty as it may be: it starts, ends, fails and cancels in any order."""
    choose = Random(seed)
    lanes, cluster = ArrayThrottle(most), Scheduler(most)
    coming, moves, moved = choose.randint(2, 8), choose.randint(0, 3), dict[str, int]()
    while True:
        running = [(array, number) for array in cluster.arrays.values() for number in sorted(array.runs)]
        waiting = [(array, number) for array in cluster.arrays.values() for number in sorted(array.waits)]
        startable = cluster.startable()
        assert startable or running or not waiting, "nothing can ever go on"
        acts = ["submit"] * bool(coming) + ["start"] * 3 * bool(startable) + ["end"] * 2 * bool(running)
        acts += ["move"] * bool(running and moves)
        if not acts:
            break
        act = choose.choice([*acts * 5, *(["cancel"] if waiting else [])])
        if act == "submit":
            coming -= 1
            while moved:  # somebody has looked at the new batches, as the writer does first
                lanes.join(*moved.popitem())
            submit(choose, lanes, cluster)
        elif act == "start":
            array, number = choose.choice(startable)
            array.waits.remove(number)
            array.runs.add(number)
        elif act == "move":
            moves -= 1
            move(choose, cluster, moved, *choose.choice(running))
        elif act == "end":
            cluster.end(*choose.choice(running), choose.random() < 0.8)
        else:
            cluster.end(*choose.choice(waiting), False)
        cluster.cancel_hopeless()
        assert cluster.running() <= most


def submit(choose: Random, lanes: ArrayThrottle, cluster: Scheduler) -> None:
    if choose.random() < 0.3:  # somebody has looked at the files
        lanes.update({name: cluster.left(name) for name in lanes.tokens()})
    before = list(cluster.arrays.values())
    elements, after = choose.randint(1, 9), list[ArrayDependency]()
    if before and choose.random() < 0.7:
        other = choose.choice(before)
        kind = choose.choice(("corresponding", "corresponding", "any", "one"))
        after = [ArrayDependency("any" if kind == "one" else kind, other.name, 0 if kind == "one" else None)]
        if kind == "corresponding":
            elements = min(elements, len(other.waits | other.runs | other.ends.keys()))
    name = str(len(before))
    cluster.submit(name, elements, lanes.enter(name, elements, tuple(after)))


def move(choose: Random, cluster: Scheduler, moved: dict[str, int], array: Array, number: int) -> None:
    """A call goes on in a successor, perhaps with calls behind it; the executor hears of that later."""
    cluster.end(array, number, False)
    name, elements = str(len(cluster.arrays)), choose.choice((1, 1, 5))
    others = [other for other in cluster.arrays if cluster.left(other)]
    cluster.submit(name, elements, tuple(ArrayDependency("any", other) for other in others))
    moved[name] = elements


# ------------------------------------------------------------------ what is waited for


def names(after: tuple[ArrayDependency, ...]) -> set[object]:
    return {each.array for each in after}


def test_what_fits_beside_others_waits_for_nothing() -> None:
    lanes = ArrayThrottle(10)
    assert lanes.enter("a", 4, ()) == ()
    assert lanes.enter("b", 6, ()) == ()
    assert lanes.enter("c", 1, ()) == (ArrayDependency("any", "a"),)  # which began first


def test_what_is_too_wide_waits_for_all() -> None:
    lanes = ArrayThrottle(10)
    lanes.enter("a", 4, ())
    assert names(lanes.enter("b", 100, ())) == {"a"}
    assert names(lanes.enter("c", 100, ())) == {"a", "b"}


def test_layers_element_by_element_are_as_wide_as_one() -> None:
    lanes = ArrayThrottle(10)
    lanes.enter("a", 10, ())
    follows = (ArrayDependency("corresponding", "a"),)
    assert lanes.enter("b", 10, follows) == follows
    assert names(lanes.enter("again", 10, follows)) == {"a", "b"}  # a second call for each would run beside the first


def test_layers_that_are_throttled_are_not() -> None:
    lanes = ArrayThrottle(10)
    lanes.enter("a", 11, ())
    assert lanes.enter("b", 11, (ArrayDependency("corresponding", "a"),)) == (
        ArrayDependency("corresponding", "a"),
        ArrayDependency("any", "a"),
    )


def test_what_has_ended_is_not_waited_for() -> None:
    lanes = ArrayThrottle(10)
    lanes.enter("a", 100, ())
    lanes.enter("b", 100, ())
    lanes.update({"a": 0, "b": 3})
    assert lanes.tokens() == ["b"]
    assert lanes.enter("c", 7, ()) == ()


def test_lanes_are_dealt_out_in_turn_over_all_arrays() -> None:
    lanes = LaneThrottle(3, "lane.ab")
    assert lanes.enter(2) == ["lane.ab-0", "lane.ab-1"]
    assert lanes.enter(3) == ["lane.ab-2", "lane.ab-0", "lane.ab-1"]
