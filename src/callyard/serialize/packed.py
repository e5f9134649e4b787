"""Packed objects, and how they are opened. It is all of packing that a job needs.

`Packed` is what lies between: it can be sent, kept, forwarded to another worker without being opened, or opened.
"""

from __future__ import annotations

import _pickle as pickle
from _thread import _local
from collections.abc import Sequence

from ..utils.lite_typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .shared_memory import Memory

__all__ = ["Packed", "Span", "given", "load_with_inputs"]

Span = tuple[int, int, int]  # (which of the memories, offset, length)


class Packed:
    """A pickled object. `data` is the pickle, or None if that is large itself: then it is the first span."""

    __slots__ = ("data", "memories", "spans")

    def __init__(self, data: bytes | None, memories: tuple[Memory, ...] = (), spans: tuple[Span, ...] = ()) -> None:
        self.data, self.memories, self.spans = data, memories, spans

    def load(self) -> Any:
        """The object: a new one each time, whose buffers are writable where the original's were."""
        if self.data is not None and not self.memories:
            return pickle.loads(self.data)
        views = [memory.view() for memory in self.memories]
        buffers = [views[which][start : start + length] for which, start, length in self.spans]
        data = self.data if self.data is not None else buffers.pop(0)
        return pickle.loads(data, buffers=buffers)


# -- what stands for futures -------------------------------------------------------------------------------


class _Inputs(_local):
    values: Sequence[Any] = ()


_inputs = _Inputs()


def given(number: int) -> Any:
    return _inputs.values[number]


def load_with_inputs(packed: Packed, inputs: Sequence[Any]) -> Any:
    """Open arguments whose futures stand for `inputs`."""
    _inputs.values = inputs
    try:
        return packed.load()
    finally:
        _inputs.values = ()
