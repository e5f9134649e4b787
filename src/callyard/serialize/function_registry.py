"""The registry of functions: sent to a worker once, and then called by number.

An importable function is defined in the worker by its name. A function by value is defined again after a change of
any global in its reach. A function that is new in each call, such as a lambda in a loop, travels with the arguments.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import count
from types import BuiltinFunctionType, FunctionType, MappingProxyType
from typing import Any

from . import definition_identity, importable
from .change_detection import LRU, Snapshot, snapshot
from .dump import Dump, dumps
from .importable import by_reference
from .module_namespace import ModuleNamespace, Origin, SentGlobals, Variable
from .object_graph import AnyPickle, ObjectGraph
from .pickler import Pickler, ValuePickler
from .reached_globals import MISSING, forget_pickles, sent_globals, value_of, variable_of

__all__ = ["FunctionDefinition", "FunctionRegistry", "Pickler", "dumps"]


def resend_by_value(modules: Iterable[str]) -> None:
    """Send functions and classes of these modules by value from now on: workers find other versions of the modules."""
    importable.differ(modules)
    _resend()


def _resend() -> None:
    forget_pickles()
    definition_identity.forget_sent()


class FunctionDefinition:
    """A function as sent once to each worker, to be called there by its number.

    When the last reference to the definition is gone, of the function's entry and of all pending calls, the number is
    appended to the dead ones, and workers may forget the function.
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
            # A finalizer runs in any thread and under any lock, so nothing but this atomic append is safe here.
            self._dead.append(self.id)
        except AttributeError:  # an exception has interrupted __init__
            pass


class GlobalsWatch:
    """The watch for changes of a function's globals, and for objects shared by globals and arguments."""

    __slots__ = ("_digest", "_ids", "_own", "_pickles", "_shared", "_variables")

    def __init__(self, own: Snapshot | None, dump: Dump) -> None:
        self._own = own
        self._variables: dict[ModuleNamespace, list[tuple[str, SentGlobals | None]]] = {}
        for (space, name), sent in dump.pickler.sent.items():
            self._variables.setdefault(space, []).append((name, sent))
        self._ids = frozenset[int]().union(*(sent.ids for sent in dump.pickler.sent.values() if sent is not None))
        if own is not None:
            self._ids |= {number for number in own.ids & dump.pickler.ids if dump.pickler.has(number)}
        # The pickles made for the coming call; None if another thread has taken them.
        self._pickles: list[AnyPickle | ValuePickler] | None = _changing(dump.graph)
        self._shared = self._constants_in(self._pickles)
        self._digest: bytes | None = None  # of the last pickle of all changeable values together

    def unchanged(self, function: Any) -> bool:
        """Return True if the function and its globals are as sent before."""
        if self._own is not None and not self._own.unchanged(function):
            return False
        unseen: list[Variable] = []  # globals whose values may have changed unseen
        for space, expected in self._variables.items():
            values, last = space.globals(), sent_globals(space)
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
        """Return True if the pickle of the arguments contains an object in the reach of the function."""
        pickles, self._pickles = self._pickles, None
        if pickles is None or (self._ids and any(map(pickler.has, self._ids & pickler.ids))):
            return True
        return any(pickler.has(n) and one.has(n) for one in pickles for n in one.ids & pickler.ids)

    def forget(self) -> None:
        """Free the pickles, because they keep the values of globals alive."""
        self._pickles = None

    def _is_as_before(self, unseen: list[Variable]) -> bool:
        """Pickle these values together: an equal pickle proves equal values, with equal sharing."""
        if any(value_of(variable) is MISSING for variable in unseen):
            return False
        together = ValuePickler(tuple(unseen), unread=True)
        self._pickles = [together]
        shared = self._constants_in(self._pickles)
        if shared == self._shared and self._is_last_pickle(unseen, together.data):
            return True
        expected = [((space, name), sent) for space, names in self._variables.items() for name, sent in names]
        graph = ObjectGraph(ValuePickler)
        graph.add(variable for variable, _ in expected)
        self._pickles = _changing(graph)
        self._digest, self._shared = _digest(together.data), shared
        return all(graph.sent[variable] is sent for variable, sent in expected)

    def _constants_in(self, pickles: list[AnyPickle | ValuePickler]) -> frozenset[int]:
        """Return the ids of objects shared by these pickles and by constant globals."""
        return frozenset().union(*(one.ids & self._ids for one in pickles)) if self._ids else frozenset()

    def _is_last_pickle(self, variables: list[Variable], data: bytes) -> bool:
        (space, name), *others = variables
        sent = sent_globals(space)[name]
        if not others and len(sent.variables) == 1 and not sent.refs:
            return sent.data == data
        return _digest(data) == self._digest


def _digest(data: bytes) -> bytes:
    """Return bytes for the comparison of pickles: a small pickle itself, or the digest of a large one."""
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
    """The functions sent to workers once. An entry lives as long as its function."""

    def __init__(self) -> None:
        self.dead: deque[int] = deque()  # numbers for workers to forget
        self._entries: dict[int, _FunctionEntry] = {}  # by id of the function
        self._seen: dict[int, weakref.ref[Any]] = {}  # functions submitted once so far, such as lambdas in a loop
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
        named = variable_of(function) is not None
        if own is None and not named:
            return None  # the closure may change unseen, so the function is pickled for each call anyway
        dump = Dump(function)
        if dump.lent:
            return None  # the closure shares an object with a global
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
        """Return True for a function submitted before, if among the last few hundred."""
        known = self._seen.pop(id(function), None)
        if known is not None and known() is function:
            return True
        if len(self._seen) >= _SEEN_LIMIT:
            self._seen.clear()
        self._seen[id(function)] = weakref.ref(function)
        return False


_DEFINABLE = frozenset((FunctionType, BuiltinFunctionType, LRU))
_SEEN_LIMIT = 256
_LARGE = 1 << 16  # bytes: larger pickles are compared by a digest
