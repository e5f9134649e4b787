"""Packed objects as part of a frame: what is said of them, and which descriptors go beside it."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from .memory import Borrowed, Memory, Owned, Private
from .packed import Packed


class Loans:
    """The memory that the other side still uses, kept from being used again by being referred to here."""

    def __init__(self) -> None:
        self._numbers = count(1)
        self._lent: dict[int, Owned | Borrowed] = {}

    def lend(self, memory: Owned | Borrowed) -> int:
        number = next(self._numbers)
        self._lent[number] = memory
        return number

    def returned(self, numbers: Iterable[int]) -> None:
        """These are no longer in use there. A negative number: the segment must not be filled again."""
        for number in numbers:
            memory = self._lent.pop(abs(number), None)
            if number < 0 and isinstance(memory, Owned):
                memory.spoil()

    def clear(self) -> None:
        self._lent.clear()


def describe(packed: Packed, loans: Loans) -> tuple[bytes, list[int]]:
    """The body of a frame for `packed`, and the descriptors to send beside it."""
    descriptors: list[int] = []
    return pickle.dumps(description(packed, loans, descriptors), 5), descriptors


def description(packed: Packed, loans: Loans, descriptors: list[int]) -> Any:
    """What to say of `packed`, in types that the standard library pickles by itself."""
    if not packed.memories:
        return packed.data
    places: list[Any] = []
    for memory in packed.memories:
        if isinstance(memory, Private):
            places.append(bytes(memory.read()))
            continue
        descriptors.append(memory.fd)
        places.append((loans.lend(memory), memory.size))
    return packed.data, places, packed.spans


def note_unused(unused: deque[int], number: int, clean: bool) -> None:
    """Note that borrowed memory is not in use any more, for `Loans.returned` on the other side."""
    unused.append(number if clean else -number)


def undescribe(description: Any, borrow: Callable[[int, int], Memory]) -> Packed:
    """The `Packed` again, where it arrived; `borrow(number, size)` takes the next descriptor."""
    if isinstance(description, bytes):
        return Packed(description)
    data, places, spans = description
    memories = tuple(Private(p) if isinstance(p, bytes) else borrow(*p) for p in places)
    return Packed(data, memories, spans)
