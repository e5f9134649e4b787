"""Packed objects in frames: their description in the body, and their descriptors beside the frame."""

from __future__ import annotations

import contextlib
import os
import pickle
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import count
from typing import Any

from ..serialize.packed import Packed
from ..serialize.shared_memory import BorrowedSegment, Memory, OwnedSegment, PrivateBytes, borrow
from . import frames

_PIECE = 1 << 28  # bytes of a segment that travel in one frame


class LentBuffers:
    """The segments that the other side still uses. A reference here keeps each from being filled anew."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._lent: dict[int, OwnedSegment | BorrowedSegment] = {}

    def lend(self, memory: OwnedSegment | BorrowedSegment) -> int:
        number = next(self._numbers)
        self._lent[number] = memory
        return number

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Withdraw the loans made in this block if the block raises."""
        # An unused number marks the beginning of the block.
        before = next(self._numbers)
        try:
            yield
        except BaseException:
            self.returned([number for number in self._lent if number > before])
            raise

    def returned(self, numbers: Iterable[int]) -> None:
        """Drop loans returned by the other side. A negative number says that the segment must not be filled again."""
        for number in numbers:
            memory = self._lent.pop(abs(number), None)
            if number < 0 and isinstance(memory, OwnedSegment):
                memory.spoil()

    def content(self, number: int) -> list[bytes]:
        """Return frames with the content of a lent segment for a receiver without its descriptor, and drop the loan."""
        # In pieces below, because no frame holds more than 4 GiB.
        view = self._lent.pop(number).read()
        return [
            frames.encode(frames.CONTENT, 0, number, 0, bytes(view[i : i + _PIECE]))
            for i in range(0, len(view), _PIECE)
        ]

    def clear(self) -> None:
        self._lent.clear()


def describe(packed: Packed, loans: LentBuffers) -> tuple[bytes, list[int]]:
    """Return the body of a frame for `packed`, and the descriptors to send beside it."""
    descriptors: list[int] = []
    return pickle.dumps(description(packed, loans, descriptors), 5), descriptors


def description(packed: Packed, loans: LentBuffers, descriptors: list[int]) -> Any:
    """Describe `packed` in types that the standard library pickles by itself."""
    if not packed.memories:
        return packed.data
    places: list[Any] = []
    for memory in packed.memories:
        if isinstance(memory, PrivateBytes):
            places.append(bytes(memory.read()))
            continue
        descriptors.append(memory.fd)
        places.append((loans.lend(memory), memory.size))
    return packed.data, places, packed.spans


def describe_whole(packed: Packed) -> bytes:
    """Return the body of a frame for `packed` without descriptors: all bytes are in the body."""
    return pickle.dumps((packed.data, [bytes(memory.read()) for memory in packed.memories], packed.spans), 5)


def note_unused(unused: deque[int], number: int, clean: bool) -> None:
    """Note that borrowed memory is no longer in use, for `LentBuffers.returned` on the other side."""
    # Finalizers call this in any thread; to append is atomic.
    unused.append(number if clean else -number)


def _lent(descriptions: Iterable[Any]) -> list[tuple[int, int]]:
    """Return the number and size of each lent segment, in the order of the descriptors."""
    lists = [each[1] for each in descriptions if not isinstance(each, bytes)]
    return [place for places in lists for place in places if isinstance(place, tuple)]


def _undescribe(description: Any, memory: Callable[[int, int], Memory]) -> Packed:
    if isinstance(description, bytes):
        return Packed(description)
    data, places, spans = description
    return Packed(data, tuple(PrivateBytes(p) if isinstance(p, bytes) else memory(*p) for p in places), spans)


def undescribe(
    descriptions: Sequence[Any], reader: frames.FrameReader, unused: Callable[[int, bool], object]
) -> list[Packed] | LostBuffers:
    """Return each `Packed` of an arrived frame; `unused(number, clean)` is called when a segment is no longer in use.

    If descriptors were lost on their way, return `LostBuffers`, to be filled with the bytes from the stream.
    """
    lent = _lent(descriptions)
    fds = reader.take(len(lent))
    # The stream itself never loses bytes, so the contents are fetched that way.
    if fds is None:
        return LostBuffers(descriptions, lent)
    left = deque(zip(lent, fds, strict=True))

    def memory(number: int, size: int) -> Memory:
        _, fd = left.popleft()
        return borrow(fd, size, partial(unused, number))

    try:
        return [_undescribe(each, memory) for each in descriptions]
    finally:
        for (number, _), fd in left:  # the memory did not suffice for all
            os.close(fd)
            unused(number, True)


class LostBuffers:
    """A frame without its descriptors, lost on their way; the stream brings the bytes of the segments instead."""

    def __init__(self, descriptions: Sequence[Any], lent: Sequence[tuple[int, int]]) -> None:
        self._descriptions = descriptions
        self._contents = {number: bytearray() for number, _ in lent}
        self._missing = sum(size for _, size in lent)

    @property
    def numbers(self) -> list[int]:
        """The numbers of the segments to fetch."""
        return list(self._contents)

    def add(self, number: int, piece: bytes) -> bool:
        """Add a piece; return True if it was the last."""
        self._contents[number] += piece
        self._missing -= len(piece)
        return self._missing <= 0

    def packed(self) -> list[Packed]:
        return [
            _undescribe(each, lambda number, _: PrivateBytes(self._contents[number])) for each in self._descriptions
        ]
