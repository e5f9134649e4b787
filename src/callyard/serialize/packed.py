"""Packed objects: a pickle with large buffers beside, to be opened or forwarded unopened.

Jobs import this module and not the packer, so the imports here are few.
"""

from __future__ import annotations

import _pickle as pickle
from _thread import _local

from ..utils.lite_stdlib import TYPE_CHECKING, Any, Iterable, Sequence

if TYPE_CHECKING:
    from .shared_memory import Memory

__all__ = ["Packed", "PackedCall", "Span", "given", "load_with_inputs"]

Span = tuple[int, int, int]  # (number of the memory, offset, length)


class Packed:
    """A pickled object. `data` is the pickle; None for a large pickle, which is the first span instead."""

    __slots__ = ("data", "memories", "spans")

    def __init__(self, data: bytes | None, memories: tuple[Memory, ...] = (), spans: tuple[Span, ...] = ()) -> None:
        self.data, self.memories, self.spans = data, memories, spans

    @property
    def size(self) -> int:
        """The bytes of the pickle and of the buffers beside it."""
        return len(self.data or b"") + sum(length for _, _, length in self.spans)

    def load(self) -> Any:
        """Return a new copy of the object; its buffers are writable where the original's were."""
        if self.data is not None and not self.memories:
            return pickle.loads(self.data)
        views = [memory.view() for memory in self.memories]
        buffers = [views[which][start : start + length] for which, start, length in self.spans]
        data = self.data if self.data is not None else buffers.pop(0)
        return pickle.loads(data, buffers=buffers)


class PackedCall:
    """A call in one pickle, or in two, of the function and of the arguments; each with its large buffers."""

    def __init__(self, pickles: Iterable[tuple[bytes, list[Any]]]) -> None:
        """Take pickles, each with memory for the buffers; for a pickle of b"" the first buffer has the data."""
        self._pickles = list(pickles)

    def load(self) -> Any:
        """Return function, arguments and keywords, once: their buffers are the given memory."""
        pickles, self._pickles = self._pickles, []
        loaded = [pickle.loads(data or buffers.pop(0), buffers=buffers) for data, buffers in pickles]
        return loaded[0] if len(loaded) == 1 else (loaded[0], *loaded[1])


# -- placeholders of futures -------------------------------------------------------------------------------


class _Inputs(_local):
    values: Sequence[Any] = ()


_inputs = _Inputs()


def given(number: int) -> Any:
    """Return an input by its number: called by pickles of arguments, once for each occurrence of a future."""
    return _inputs.values[number]


def load_with_inputs(packed: Packed | PackedCall, inputs: Sequence[Any]) -> Any:
    """Open arguments, with `inputs` in the places of their futures."""
    _inputs.values = inputs
    try:
        return packed.load()
    finally:
        _inputs.values = ()
