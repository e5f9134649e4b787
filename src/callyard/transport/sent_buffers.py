"""Large buffers that a driver and its agent both have, so that each goes to a node once, however many calls take it.

driver: SentBuffers   gives each segment a number; when the segment is gone, the agent may forget it
agent:  KeptBuffers   keeps them until then
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

from ..serialize.shared_memory import Memory, OwnedSegment

__all__ = ["KeptBuffers", "SentBuffers"]


class SentBuffers:
    """The numbers of the buffers that the peer keeps."""

    __slots__ = ("_dropped", "_last", "_numbers", "_on_drop")

    def __init__(self, on_drop: Callable[[], object] = lambda: None) -> None:
        """Make the notes; `on_drop` is called when a buffer can be forgotten, in any thread, so it may only append."""
        self._on_drop = on_drop
        self._numbers: dict[int, tuple[weakref.ref[OwnedSegment], int]] = {}  # by the id of the segment
        self._dropped: deque[tuple[int, int]] = deque()  # id and number
        self._last = 0

    def add(self, memory: Memory) -> int:
        """Return the number of a buffer: negative if the peer has it, 0 if the peer cannot keep it.

        A new number means that the buffer must go beside the message.
        """
        if not isinstance(memory, OwnedSegment):
            return 0
        known = self._numbers.get(id(memory))
        # The id alone proves nothing, because a new segment may have the id of one that is gone.
        if known is not None and known[0]() is memory:
            return -known[1]
        self._last += 1
        place, number, dropped, on_drop = id(memory), self._last, self._dropped, self._on_drop

        def drop(_: object) -> None:
            # In any thread, in the middle of anything here.
            dropped.append((place, number))
            on_drop()

        self._numbers[place] = weakref.ref(memory, drop), number
        return number

    def take_dropped(self) -> list[int]:
        """Return the numbers of buffers that no call here can use any more, for the peer to forget."""
        numbers = []
        for _ in range(len(self._dropped)):  # finalizers may append more meanwhile
            place, number = self._dropped.popleft()
            numbers.append(number)
            if self._numbers[place][1] == number:
                del self._numbers[place]
        return numbers


class KeptBuffers:
    """The buffers that the driver may name again."""

    __slots__ = ("_kept",)

    def __init__(self) -> None:
        self._kept: dict[int, Memory] = {}

    def take(self, numbers: Sequence[int], beside: Iterator[Memory]) -> tuple[Memory, ...]:
        """Return the buffers of these numbers; new ones come from beside the message, in their order."""
        return tuple(self._one(number, beside) for number in numbers)

    def _one(self, number: int, beside: Iterator[Memory]) -> Memory:
        if number < 0:
            return self._kept[-number]
        memory = next(beside)
        if number:
            self._kept[number] = memory
        return memory

    def forget(self, numbers: Iterable[int]) -> None:
        """Let go of buffers; calls that have them keep them."""
        for number in numbers:
            del self._kept[number]
