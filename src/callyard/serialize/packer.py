"""The packer: pickles objects, and copies their large buffers into shared memory.

A future among the arguments becomes a number in the pickle and an entry in the list of inputs. When the call is sent,
the future's result goes along as an input, still packed, and is not pickled again.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping

from ..utils.lite_stdlib import TYPE_CHECKING, Any
from .packed import Packed, Span, given, load_with_inputs
from .shared_memory import Memory, PrivateBytes, SegmentPool
from .stored_contents import StoredContents

if TYPE_CHECKING:
    from .dump import Dump
    from .function_registry import FunctionDefinition

__all__ = ["LARGE", "Packed", "Packer", "load_with_inputs", "note_futures"]

_SMALL = frozenset((int, float, complex, bool, type(None)))  # no buffers, no futures, no user code
LARGE = 1 << 17  # bytes from which a buffer travels in shared memory: below, the socket is as fast
_SHARED_APART = 8  # the most large buffers of one object with a segment each; more go into one segment together


class Packer:
    """Packs objects, with a pool of segments for their large buffers.

    `to_driver`: True if the reader has sent the functions of this process, and needs none of their globals.
    """

    def __init__(self, segments: SegmentPool, to_driver: bool = False) -> None:
        self._segments = segments
        self._to_driver = to_driver
        self._contents = StoredContents(segments)

    def pack(self, value: Any, futures: list[Any] | None = None) -> Packed:
        """Pack a value in its present state. With a list `futures`, futures go into the list and become numbers."""
        if type(value) in _SMALL or (type(value) in (str, bytes) and len(value) < LARGE):
            return Packed(pickle.dumps(value, 5))
        return self._packed(*self._dump(value, futures))

    def pack_arguments(
        self,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        futures: list[Any],
        definition: FunctionDefinition | None = None,
    ) -> Packed | None:
        """Pack arguments in their present state, plain numbers without a `Dump`.

        Returns:
            None if the arguments share an object with the globals of the function, so that one pickle must hold both.
        """
        watch = None if definition is None else definition.watch
        if not _are_small(args, kwargs):
            dump, buffers = self._dump((args, kwargs), futures)
            if watch is not None and watch.shares(dump.pickler):
                return None
            return self._packed(dump, buffers)
        if watch is not None:
            watch.forget()
        return Packed(pickle.dumps((args, kwargs), 5))

    def _dump(self, value: Any, futures: list[Any] | None) -> tuple[Dump, list[pickle.PickleBuffer]]:
        from .dump import Dump  # here, because the zygote must start soon, and imports this after its start

        buffers: list[pickle.PickleBuffer] = []
        reduce = note_futures(futures)
        return Dump(
            value,
            buffer_callback=keep_large(buffers, LARGE),
            reduce=reduce,
            to_driver=self._to_driver,
            again=buffers.clear,
        ), buffers

    def _packed(self, dump: Dump, buffers: list[pickle.PickleBuffer]) -> Packed:
        raw = [buffer.raw() for buffer in buffers]
        if len(dump.data) < LARGE:
            return Packed(dump.data, *self._snapshot(raw))
        return Packed(None, *self._snapshot([memoryview(dump.data), *raw]))

    def shared(self, memory: Any) -> Any:
        """Return private memory in a segment, if a segment is left now, and any other memory unchanged."""
        if isinstance(memory, PrivateBytes):
            return self._segments.fill(memory.read()) or memory
        return memory

    def _snapshot(self, buffers: list[memoryview]) -> tuple[tuple[Memory, ...], tuple[Span, ...]]:
        if not buffers:
            return (), ()
        if len(buffers) <= _SHARED_APART:
            memories = tuple(map(self._contents.store, buffers))
            return memories, tuple((i, 0, m.size) for i, m in enumerate(memories))
        spans, start = [], 0
        for buffer in buffers:
            spans.append((0, start, buffer.nbytes))
            start += -(-buffer.nbytes // 64) * 64  # aligned to 64 bytes, a cache line
        whole = bytearray(start)
        for buffer, (_, first, length) in zip(buffers, spans, strict=True):
            whole[first : first + length] = buffer
        return (self._contents.store(memoryview(whole)),), tuple(spans)


def _are_small(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
    for value in args:
        if type(value) not in _SMALL:
            return False
    if kwargs:
        for value in kwargs.values():
            if type(value) not in _SMALL:
                return False
    return True


def keep_large(buffers: list[pickle.PickleBuffer], least: int) -> Callable[[pickle.PickleBuffer], bool]:
    """Return a `buffer_callback` that keeps buffers of at least so many bytes apart from the pickle."""

    def callback(buffer: pickle.PickleBuffer) -> bool:
        try:
            large = buffer.raw().nbytes >= least
        except BufferError:  # not contiguous: pickle copies the bytes
            return True
        if large:
            buffers.append(buffer)
        return not large

    return callback


# -- futures among the arguments -------------------------------------------------------------------------


def note_futures(futures: list[Any] | None) -> Callable[[Any], Any] | None:
    """Return the hook for a pickler to append futures to a list and replace each by its number."""
    if futures is None:
        return None
    from ..dependencies.replace_futures import is_future  # here, because workers never need it

    numbers: dict[int, int] = {}

    def reduce(value: Any) -> Any:
        if not is_future(value):
            return NotImplemented
        number = numbers.setdefault(id(value), len(futures))
        if number == len(futures):
            futures.append(value)
        return given, (number,)

    return reduce
