"""The throttle: `max_workers` of an executor as dependencies, because no process may be left to count calls.

The scheduler limits the elements of one array that run at once, and lets an array wait for others. Both together make
the limit. For each array, take the earlier arrays without a dependency between: all of them are together so narrow that
the new array fits beside. So at any moment the latest running array had room beside all others. This holds after
cancellations and failures, too: an array names all the arrays before it in the queue, as one of them may end before
another begins.

Arrays in a row, element by element, are as wide as one of them: for each number one element runs at a time.

A successor (`jobs/successor`) is written by another process than the executor's. So it waits for all arrays of the
executor that were submitted before it, and those written later count it among the others: all batches of an executor
bear its name (`ArrayThrottle.name`).

Where the elements of an array are jobs of their own (`Site.separate`), the scheduler keeps lanes instead.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from itertools import cycle, islice

from .planner import ArrayDependency

__all__ = ["ArrayThrottle", "LaneThrottle"]


class _ArrayChain:
    """Arrays each of which follows the one before element by element, or a single array."""

    def __init__(self, width: int, throttled: bool) -> None:
        self.width, self.throttled = width, throttled  # elements that may run at once; True if there are more
        self.left: dict[str, int] = {}  # the number of each array's elements that have not ended

    def held(self) -> int:
        return min(self.width, sum(self.left.values()))


class ArrayThrottle:
    """The arrays of one executor that may still run, with a limit on all elements running at once."""

    def __init__(self, most: int, name: str = "") -> None:
        self.name = name  # of the executor, in its batches
        self._most = most
        self._chains: list[_ArrayChain] = []  # in the order of their first arrays

    def tokens(self) -> list[str]:
        return [token for chain in self._chains for token in chain.left]

    def update(self, left: Mapping[str, int]) -> None:
        """Note the number of unfinished elements of each array."""
        for chain in self._chains:
            now = {token: left.get(token, count) for token, count in chain.left.items()}
            chain.left = {token: count for token, count in now.items() if count}
        self._chains = [chain for chain in self._chains if chain.left]

    def enter(self, token: str, elements: int, after: tuple[ArrayDependency, ...]) -> tuple[ArrayDependency, ...]:
        """Return the dependencies with which a new array may run as wide as allowed."""
        chain = self._chain_before(elements, after) or _ArrayChain(min(elements, self._most), elements > self._most)
        if not chain.left:
            self._chains.append(chain)
        chain.left[token] = elements
        beside = self._beside(chain, _whole(after))
        others = (each for each in self._chains if each is not chain and each not in beside)
        return (*after, *_anyhow((name for each in others for name in each.left), after))

    def join(self, token: str, elements: int) -> None:
        """Count an array that waits for all others, as a successor does; one that is known already counts once."""
        if token not in self.tokens():
            self._chains.append(_ArrayChain(min(elements, self._most), elements > self._most))
            self._chains[-1].left[token] = elements

    def _chain_before(self, elements: int, after: tuple[ArrayDependency, ...]) -> _ArrayChain | None:
        """Return the chain that the array continues; a throttled chain could have two elements of a number at once."""
        followed = {name for kind, name, _ in after if kind == "corresponding"}
        for chain in self._chains:
            if not chain.throttled and list(chain.left)[-1] in followed:
                return chain
        return None

    def _beside(self, chain: _ArrayChain, waited_for: set[Hashable]) -> list[_ArrayChain]:
        """Return the chains that may run at the same time, the latest first, because the latest ends last."""
        room, found = self._most - chain.width, list[_ArrayChain]()
        for other in reversed(self._chains):
            if other is not chain and not waited_for.issuperset(other.left) and other.held() <= room:
                found.append(other)
                room -= other.held()
        return found


def _whole(after: Iterable[ArrayDependency]) -> set[Hashable]:
    """Return the arrays of which all elements must have ended."""
    return {name for kind, name, number in after if kind in ("ok", "any") and number is None}


def _anyhow(tokens: Iterable[str], after: tuple[ArrayDependency, ...]) -> Iterable[ArrayDependency]:
    return (ArrayDependency("any", token) for token in tokens if token not in _whole(after))


class LaneThrottle:
    """The lanes of one executor whose jobs are separate: the scheduler runs one job of a lane at a time.

    Calls are dealt out in turn when they are written down, so a lane may be idle while another has calls that wait.
    """

    def __init__(self, most: int, name: str) -> None:
        self._lanes = cycle(f"{name}-{number}" for number in range(most))

    def enter(self, elements: int) -> list[str]:
        """Return the lanes of a new array's elements."""
        return list(islice(self._lanes, elements))
