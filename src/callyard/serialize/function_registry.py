"""The registry of functions that are sent to a worker once, and then called by number.

A function that a worker can import is defined there by its name. One that travels by value is defined again when
anything that it reaches by name has changed. A function that is new in each call, such as a lambda in a loop, travels
with the arguments.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count
from types import BuiltinFunctionType, FunctionType, MappingProxyType
from typing import Any

from . import importable, object_identity
from .change_detection import LRU, Snapshot, snapshot
from .dump import Dump, dumps
from .globals import MISSING, forget_pickles, place_of, value_of
from .importable import by_reference
from .module_namespace import ModuleNamespace, Origin, Place, SentGlobals
from .object_graph import AnyPickle, ObjectGraph
from .pickler import Pickler, ValuePickler

__all__ = ["FunctionDefinition", "FunctionRegistry", "Pickler", "dumps"]


def resend_by_value(modules: Iterable[str]) -> None:
    """Let functions and classes of these modules travel by value from now on: workers find another version of them."""
    importable.differ(modules)
    _resend()


def _resend() -> None:
    forget_pickles()
    object_identity.forget_sent()


class FunctionDefinition:
    """A function as it is sent once to each worker, to be called there by its number.

    Its number is put among the dead when nothing refers to the definition any more: neither the entry of the function
    nor a pending call. Workers may forget it then.
    """

    __slots__ = ("__weakref__", "_dead", "data", "id", "names", "watch")

    def __init__(
        self,
        number: int,
        data: bytes,
        names: Mapping[tuple[Origin, str], int] | None,
        dead: deque[int],
        watch: GlobalsWatch | None = None,
    ) -> None:
        self.id, self.data, self.names, self._dead = number, data, names, dead
        self.watch = watch

    def __del__(self) -> None:
        try:
            self._dead.append(self.id)
        except AttributeError:  # an exception has interrupted __init__
            pass


class GlobalsWatch:
    """Tells whether a function's globals have changed, and whether they share an object with its arguments."""

    __slots__ = ("_digest", "_ids", "_own", "_pickles", "_places", "_shared")

    def __init__(self, own: Snapshot | None, dump: Dump) -> None:
        self._own = own
        self._places: dict[ModuleNamespace, list[tuple[str, SentGlobals | None]]] = {}
        for (space, name), sent in dump.pickler.sent.items():
            self._places.setdefault(space, []).append((name, sent))
        self._ids = frozenset[int]().union(*(sent.ids for sent in dump.pickler.sent.values() if sent is not None))
        if own is not None:
            self._ids |= {number for number in own.ids & dump.pickler.ids if dump.pickler.has(number)}
        # The pickles made for the coming call. None: there are none, or another thread has taken them.
        self._pickles: list[AnyPickle | ValuePickler] | None = _changing(dump.graph)
        self._shared = self._constants_in(self._pickles)
        self._digest: bytes | None = None  # of the values that may change, when they were pickled together last

    def unchanged(self, function: Any) -> bool:
        """Tell whether the function and its globals are as they were sent."""
        if self._own is not None and not self._own.unchanged(function):
            return False
        unseen: list[Place] = []  # whose values may have changed unseen
        for space, expected in self._places.items():
            values, last = space.globals(), space.sent
            for name, sent in expected:
                if sent is None or sent.data is None:
                    if name in values:
                        return False
                elif last.get(name) is not sent:
                    return False
                elif sent.snapshot is None or not sent.snapshot.unchanged(values.get(name)):
                    unseen.append((space, name))
        self._pickles = []
        return not unseen or self._is_as_before(unseen)

    def shares(self, pickler: Pickler) -> bool:
        """Tell whether the pickle of the arguments contains an object that the function reaches, too."""
        pickles, self._pickles = self._pickles, None
        if pickles is None or (self._ids and any(map(pickler.has, self._ids & pickler.ids))):
            return True
        return any(pickler.has(n) and one.has(n) for one in pickles for n in one.ids & pickler.ids)

    def forget(self) -> None:
        """Free the pickles, which keep the values of globals alive."""
        self._pickles = None

    def _is_as_before(self, unseen: list[Place]) -> bool:
        """Pickle these values together: if the pickle is the same, the values and the objects that they share are."""
        if any(value_of(place) is MISSING for place in unseen):
            return False
        together = ValuePickler(tuple(unseen), unread=True)
        self._pickles = [together]
        shared = self._constants_in(self._pickles)
        if shared == self._shared and self._is_last_pickle(unseen, together.data):
            return True
        expected = [((space, name), sent) for space, names in self._places.items() for name, sent in names]
        graph = ObjectGraph(ValuePickler)
        graph.add(place for place, _ in expected)
        self._pickles = _changing(graph)
        self._digest, self._shared = _digest(together.data), shared
        return all(graph.sent[place] is sent for place, sent in expected)

    def _constants_in(self, pickles: list[AnyPickle | ValuePickler]) -> frozenset[int]:
        """Return the ids of objects in these pickles that other, constant globals share."""
        return frozenset().union(*(one.ids & self._ids for one in pickles)) if self._ids else frozenset()

    def _is_last_pickle(self, places: list[Place], data: bytes) -> bool:
        (space, name), *others = places
        sent = space.sent[name]
        if not others and len(sent.places) == 1 and not sent.refs:
            return sent.data == data
        return _digest(data) == self._digest


def _digest(data: bytes) -> bytes:
    """Return bytes by which a pickle can be compared: small ones as they are."""
    if len(data) < _LARGE:
        return data
    from hashlib import blake2b  # here, because it loads OpenSSL, and few globals are large

    return blake2b(data).digest()


def _changing(graph: ObjectGraph) -> list[AnyPickle | ValuePickler]:
    return [pickle for pickle in graph.distinct() if pickle.snapshot is None]


class _FunctionEntry:
    __slots__ = ("definition", "reference", "watch")

    def __init__(self, reference: weakref.ref[Any], definition: FunctionDefinition, watch: GlobalsWatch | None) -> None:
        self.reference, self.definition, self.watch = reference, definition, watch


class FunctionRegistry:
    """The functions that are sent to workers once. An entry lives as long as its function."""

    def __init__(self) -> None:
        self.dead: deque[int] = deque()  # numbers that workers may forget
        self._entries: dict[int, _FunctionEntry] = {}  # by id of the function
        self._seen: dict[int, weakref.ref[Any]] = {}  # functions that were submitted once, as lambdas in a loop are
        self._numbers = count(1)
        self._differences = importable.differences

    def definition(self, function: Any) -> FunctionDefinition | None:
        """Return the definition of a function; None if it travels with the arguments of each call."""
        if importable.importing and importable.settle():
            _resend()
        if self._differences != importable.differences:
            self._entries.clear()
            self._differences = importable.differences
        entry = self._entries.get(id(function))
        if entry is not None and entry.reference() is function:
            watch = entry.watch
            if watch is None or watch.unchanged(function):
                return entry.definition
            return self._by_value(function)
        kind = type(function)
        if kind not in _DEFINABLE and not isinstance(function, type):
            return None
        if by_reference(function):
            return self._enter(function, dumps(function), None, None)
        if kind is BuiltinFunctionType or isinstance(function, type) or not self._came_before(function):
            return None
        return self._by_value(function)

    def _by_value(self, function: Any) -> FunctionDefinition | None:
        own = snapshot(function)
        named = place_of(function) is not None
        if own is None and not named:
            return None  # its closure may change unseen, so it is pickled for each call anyway
        dump = Dump(function)
        if dump.lent:
            return None  # its closure shares an object with a global
        sent = dump.pickler.sent
        names = {(space.header[0], n): one.version for (space, n), one in sent.items() if one is not None}
        return self._enter(function, dump.data, MappingProxyType(names), GlobalsWatch(None if named else own, dump))

    def _enter(
        self, function: Any, data: bytes, names: Mapping[tuple[Origin, str], int] | None, watch: GlobalsWatch | None
    ) -> FunctionDefinition:
        number, entries = id(function), self._entries

        def forget(reference: weakref.ref[Any]) -> None:
            if number in entries and entries[number].reference is reference:
                del entries[number]

        definition = FunctionDefinition(next(self._numbers), data, names, self.dead, watch)
        entries[number] = _FunctionEntry(weakref.ref(function, forget), definition, watch)
        return definition

    def _came_before(self, function: Any) -> bool:
        """Tell whether the function was submitted before; only the last few are remembered."""
        known = self._seen.pop(id(function), None)
        if known is not None and known() is function:
            return True
        if len(self._seen) >= _REMEMBERED:
            self._seen.clear()
        self._seen[id(function)] = weakref.ref(function)
        return False


_DEFINABLE = frozenset((FunctionType, BuiltinFunctionType, LRU))
_REMEMBERED = 256
_LARGE = 1 << 16  # bytes: of larger pickles a digest is kept
