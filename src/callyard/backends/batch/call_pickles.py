"""The pickles of calls for their jobs. Large parts are kept apart, each content once.

So an array passed to a hundred calls is copied once, here and on disk; and of a call pickled twice, with and without
the user's modules inside, only the modules are there twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pickle import PickleBuffer
from typing import Any, NamedTuple
from weakref import WeakValueDictionary

from ...hashing.digest import content
from ...jobs.batch import StoredPickle
from ...serialize.dump import Dump
from ...serialize.function_registry import FunctionDefinition
from ...serialize.packed import PackedCall
from ...serialize.packer import note_futures
from ...serialize.shared_memory import Memory, PrivateBytes

__all__ = [
    "BufferFile",
    "CallPickle",
    "LargeContents",
    "Pickling",
    "hold_arguments",
    "packed_call",
    "pickle_arguments",
    "pickle_call",
    "pickle_function",
    "pickle_value",
    "share",
]

_LARGE = 1 << 16  # bytes


class LargeContent:
    """Bytes common to the arguments of several calls, in the state at the first submission."""

    __slots__ = ("__weakref__", "memory", "token")

    def __init__(self, memory: Memory, token: bytes) -> None:
        self.memory, self.token = memory, token

    @property
    def size(self) -> int:
        return self.memory.size

    @property
    def data(self) -> memoryview:
        return self.memory.read()


def _copied(view: memoryview) -> Memory:
    return PrivateBytes(bytes(view))


def _held(view: memoryview) -> Memory:
    return PrivateBytes(view)


_keep: Callable[[memoryview], Memory] = _copied


def hold_arguments() -> None:
    """Copy no arguments in this process: whoever makes its calls does not change them after `submit`."""
    global _keep
    _keep = _held


class LargeContents:
    """The contents for calls not written yet.

    Args:
        keep: makes the copy of each; by default in memory.
    """

    def __init__(self, keep: Callable[[memoryview], Memory] | None = None) -> None:
        self._keep = keep or _keep
        self._known: WeakValueDictionary[bytes, LargeContent] = WeakValueDictionary()

    def keep(self, view: memoryview) -> LargeContent:
        """Return the copy of this content, which lives as long as any reference from outside."""
        token = content(b"", view)
        found = self._known.get(token)
        if found is None:  # another thread may be making one, too; then there are two
            found = self._known[token] = LargeContent(self._keep(view), token)
        return found


class CallPickle(NamedTuple):
    """A pickle with its large buffers.

    The data of a large pickle are the first of the buffers, and b"" is in their place.
    """

    data: bytes
    buffers: tuple[LargeContent, ...]


def pickle_call(parts: tuple[Any, Any, Any], futures: list[Any], contents: LargeContents) -> tuple[CallPickle, ...]:
    """Pickle function, arguments and keywords, and append the futures among them to a list.

    The result is one pickle. From a large one the function is split off, unless function and arguments share an object:
    then the rest is the same with and without the user's modules inside, and in other calls.
    """
    whole = Pickling(parts, note_futures(futures))
    if len(whole.dump.data) < _LARGE:
        return (whole.kept(contents),)
    function, *rest = parts
    noted: list[Any] = []
    reduce = note_futures(noted)
    one, other = Pickling(function, reduce), Pickling(tuple(rest), reduce)
    if share(one.dump, other.dump) or [*map(id, noted)] != [*map(id, futures)]:
        return (whole.kept(contents),)
    return one.kept(contents), other.kept(contents)


def pickle_arguments(
    arguments: tuple[Any, Any], futures: list[Any], contents: LargeContents, definition: FunctionDefinition
) -> CallPickle | None:
    """Pickle arguments and keywords for a function that is sent apart, and append the futures among them to a list.

    Returns:
        None if the arguments share an object with the globals of the function, so that one pickle must hold both.
    """
    noted: list[Any] = []
    pickling = Pickling(arguments, note_futures(noted))
    if definition.watch is not None and definition.watch.shares(pickling.dump.pickler):
        return None
    futures.extend(noted)
    return pickling.kept(contents)


def pickle_function(definition: FunctionDefinition, contents: LargeContents) -> CallPickle:
    """Return the pickle of a function for many calls."""
    return _kept(definition.data, [], contents)


def pickle_value(value: Any, contents: LargeContents) -> CallPickle:
    """Pickle an input of a call."""
    return Pickling(value, None).kept(contents)


class Pickling:
    """A pickle with its large buffers still in the memory of the objects."""

    def __init__(self, thing: Any, reduce: Any) -> None:
        buffers: list[memoryview] = []

        # No method: a circle of references would keep the user's objects until the next garbage collection.
        def take(buffer: PickleBuffer) -> bool:
            """Take a large buffer out of the pickle; return True for a small one, which stays inside."""
            view = buffer.raw()
            if view.nbytes >= _LARGE:
                buffers.append(view)
            return view.nbytes < _LARGE

        self._buffers = buffers
        self.dump = Dump(thing, buffer_callback=take, reduce=reduce, again=buffers.clear)

    def kept(self, contents: LargeContents) -> CallPickle:
        return _kept(self.dump.data, self._buffers, contents)


def _kept(data: bytes, buffers: list[memoryview], contents: LargeContents) -> CallPickle:
    if len(data) >= _LARGE:
        data, buffers = b"", [memoryview(data), *buffers]
    return CallPickle(data, tuple(map(contents.keep, buffers)))


def share(function: Dump, arguments: Dump) -> bool:
    """Return True if an object is, or may be, in both: then one pickle must hold it, to be one object in the job."""
    if list(arguments.graph.distinct()):
        return True
    other = arguments.pickler
    return any(
        one.has(number) and other.has(number)
        for one in (function.pickler, *function.graph.distinct())
        for number in one.ids & other.ids
    )


def packed_call(pickles: Sequence[CallPickle]) -> PackedCall:
    """Return a call to be opened here."""
    return PackedCall((each.data, [buffer.memory.view() for buffer in each.buffers]) for each in pickles)


class BufferFile:
    """The file `buffers` of a batch in the making: each content has one place in it."""

    def __init__(self) -> None:
        self.contents: list[memoryview] = []
        self._places: dict[LargeContent, tuple[int, int]] = {}
        self._end = 0

    def store(self, pickles: Sequence[CallPickle]) -> tuple[StoredPickle, ...]:
        """Return the pickles of a call with places for their buffers."""
        return tuple(StoredPickle(each.data, tuple(map(self._place, each.buffers))) for each in pickles)

    def _place(self, buffer: LargeContent) -> tuple[int, int]:
        if buffer not in self._places:
            self._places[buffer] = self._end, buffer.size
            self.contents.append(buffer.data)
            self._end += buffer.size
        return self._places[buffer]
