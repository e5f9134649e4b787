"""The namespaces of functions that travel by value: one for each module, in every process that reads them.

A process that sends functions is at home in its modules: their namespaces are `ModuleNamespace`s, nothing that is
read ever changes them, and what returns is the very function or class that was sent. Everywhere else the
namespace is a `GuestNamespace`: a module of its own, whose names are set from *units* (name, version, pickle) that
travel with the functions that reach them. A unit is stored when its version is not the last one received
for that name, so what an initializer stored there stays until the sender's value changes.
"""

from __future__ import annotations

import _pickle as pickle
import builtins
import importlib
import os
import sys
import weakref
from collections.abc import Callable
from functools import partial
from types import FunctionType, ModuleType

from ..utils.lite_typing import TYPE_CHECKING, Any
from ..utils.locks import new_lock, under
from . import import_statements as imports
from . import object_identity

if TYPE_CHECKING:
    from .globals import GlobalUnit

Origin = tuple[str, str, int]  # (token of the process at home there, module, 0 or which one of that name)
# What a namespace is made from elsewhere: its origin and its attributes.
Header = tuple[Origin, "tuple[tuple[str, Any], ...]"]
Head = tuple[Header, str]  # a name in it
# A name, the version of its value and the pickle of that, None where the name was deleted.
Wire = tuple[Header, str, int, "bytes | None"]
# What must be there before a function may run: globals, submodules, and texts by file name. Plain tuples,
# because these are in each pickle.
Needs = tuple["tuple[Wire, ...]", "tuple[str, ...]", "tuple[tuple[str, str], ...]"]

changes = 0  # how often anything was stored in a guest; who keeps a function loads it again after a change

_HEADED = ("__name__", "__package__", "__file__", "__path__")
UNSENT = frozenset((*_HEADED, "__builtins__", "__getattr__", "__spec__", "__loader__", "__cached__"))

_LENT = 0  # no version
_NONE: Any = object()  # no value
_Aside = tuple["int | None", Any, Any]  # version and value as received, and what the name meant

lock = new_lock()


class ModuleNamespace:
    """The namespace of a module at home, or of code that was executed in a dictionary."""

    __slots__ = ("__weakref__", "_holders", "header", "units")

    def __init__(self, header: Header, holder: Any) -> None:
        self.header = header
        self.units: dict[str, GlobalUnit] = {}  # as they were sent last
        self._holders = [weakref.ref(holder)]  # the module, or functions of executed code

    @property
    def foreign(self) -> bool:
        return self.header[0][0] != object_identity.token

    def held_by(self, function: FunctionType) -> None:
        if all(holder() is not function for holder in self._holders):
            self._holders = [h for h in self._holders if h() is not None] + [weakref.ref(function)]

    def holder(self) -> Any:
        for reference in self._holders:
            holder = reference()
            if holder is not None:
                return holder
        return None

    def globals(self) -> dict[str, Any]:
        holder = self.holder()
        if holder is None:
            return {}
        return holder.__globals__ if type(holder) is FunctionType else vars(holder)


class JointValues(tuple["tuple[Head, Any]", ...]):
    """Names and values that were sent in one pickle."""

    __slots__ = ()


class GuestNamespace(ModuleNamespace):
    """A namespace whose functions come from another process."""

    __slots__ = ("_aside", "_loading", "_pending", "_received", "module", "values")

    def __init__(self, header: Header) -> None:
        module = ModuleType(header[0][1])
        vars(module).update(header[1], __builtins__=builtins)
        super().__init__(header, module)
        self.module = module
        self.values: dict[str, Any] = {}  # as received, whatever the names mean now
        self._received: dict[str, int] = {}
        self._aside: dict[str, _Aside] = {}  # while other values are lent
        self._pending: dict[str, tuple[int, bytes | None]] = {}
        self._loading: dict[str, bytes] = {}

    def globals(self) -> dict[str, Any]:
        return vars(self.module)

    def offer(self, name: str, version: int, data: bytes | None) -> None:
        self._take_back(name)
        if not self.has(name, version):
            self._pending[name] = (version, data)

    def take(self, name: str) -> None:
        """Store what was offered. Loading it takes first what it is made from."""
        global changes
        offered = self._pending.pop(name, None)
        if offered is None:
            return
        version, data = offered
        changes += 1
        self.values.pop(name, None)
        if data is None:
            vars(self.module).pop(name, None)
            self._received[name] = version
            return
        value = self._load(name, data)
        if type(value) is not JointValues:
            self._store(name, version, value)
            return
        for (header, other), one in value:
            guest(header)._store(other, version, one)

    def _load(self, name: str, data: bytes) -> Any:
        self._loading[name] = data
        try:
            return pickle.loads(data)
        finally:
            self._loading.pop(name, None)

    def _store(self, name: str, version: int, value: Any) -> None:
        self._pending.pop(name, None)
        self._aside.pop(name, None)
        vars(self.module)[name] = self.values[name] = value
        self._received[name] = version

    def set_aside(self, name: str) -> None:
        """Keep what is there: another value is going to be lent."""
        self._take_back(name)
        self._aside[name] = (self._received.get(name), self.values.get(name, _NONE), self._bound(name))

    def lend(self, name: str, value: Any) -> None:
        """Until the name is offered again this is its value, unless somebody here has given it one of their own."""
        global changes
        _, received, bound = self._aside[name]
        if bound is received or bound is _NONE:
            vars(self.module)[name] = value
        self.values[name] = value
        self._received[name] = _LENT
        changes += 1

    def _take_back(self, name: str) -> None:
        kept = self._aside.pop(name, None)
        if kept is None:
            return
        version, received, bound = kept
        if self._bound(name) is self.values.get(name, _NONE):  # the call that it was lent to has left it so
            _set(vars(self.module), name, bound)
        _set(self.values, name, received)
        self._received[name] = _LENT if version is None else version

    def _bound(self, name: str) -> Any:
        return vars(self.module).get(name, _NONE)

    def has(self, name: str, version: int) -> bool:
        return self._received.get(name) == version

    def value(self, name: str) -> Any:
        """The function or class that was received, whatever its name means now."""
        self.take(name)
        if name in self.values:
            return self.values[name]
        if name in self._loading:  # a class whose base refers to it: the base is there, so it can be made
            return _of(self, name, pickle.loads(self._loading[name]))
        return vars(self.module)[name]


def _of(space: GuestNamespace, name: str, loaded: Any) -> Any:
    if type(loaded) is not JointValues:
        return loaded
    return next(value for (header, other), value in loaded if other == name and guest(header) is space)


def _set(table: dict[str, Any], name: str, value: Any) -> None:
    if value is _NONE:
        table.pop(name, None)
    else:
        table[name] = value


# -- which namespace is which ------------------------------------------------------------------------------

_spaces: weakref.WeakValueDictionary[int, ModuleNamespace] = weakref.WeakValueDictionary()  # by id of the dictionary
_origins: weakref.WeakValueDictionary[Origin, ModuleNamespace] = weakref.WeakValueDictionary()
_held: weakref.WeakKeyDictionary[Any, ModuleNamespace] = weakref.WeakKeyDictionary()  # alive as long as one of these is
_guests: dict[Origin, GuestNamespace] = {}


def space_of(function: FunctionType) -> ModuleNamespace:
    """The namespace of a function that travels by value."""
    namespace = function.__globals__
    space = _known_space(namespace)
    if space is None:
        module = sys.modules.get(namespace.get("__name__", ""))
        at_home = module is not None and vars(module) is namespace
        return _new_space(namespace, module if at_home else function, not at_home)
    if space.header[0][2]:
        _held[function] = space
        space.held_by(function)
    return space


def spaces() -> list[ModuleNamespace]:
    return list(_spaces.values())


def space_of_module(module: ModuleType) -> ModuleNamespace:
    namespace = vars(module)
    apart = sys.modules.get(module.__name__) is not module
    return _known_space(namespace) or _new_space(namespace, module, apart)


def _known_space(namespace: dict[str, Any]) -> ModuleNamespace | None:
    space = _spaces.get(id(namespace))  # that of a dictionary which is gone may be there until it is collected
    return space if space is not None and space.globals() is namespace else None


def _new_space(namespace: dict[str, Any], holder: Any, apart: bool) -> ModuleNamespace:
    attributes = tuple((name, namespace[name]) for name in _HEADED if _plain(namespace.get(name)))
    return under(lock, _agree, namespace, attributes, holder, apart)


def _agree(namespace: dict[str, Any], attributes: Any, holder: Any, apart: bool) -> ModuleNamespace:
    number = next(object_identity.numbers) if apart else 0
    origin = (object_identity.token, str(namespace.get("__name__", "")), number)
    space = _known_space(namespace) or ModuleNamespace((origin, attributes), holder)
    _held[holder] = _spaces[id(namespace)] = _origins[space.header[0]] = space
    return space


def _plain(value: Any) -> bool:
    return type(value) is str or (type(value) is list and all(type(item) is str for item in value))


def guest(header: Header) -> GuestNamespace:
    """The namespace here of functions from elsewhere."""
    found = _guests.get(header[0])
    if found is None:
        found = under(lock, _new_guest, header)
    return found


def _new_guest(header: Header) -> GuestNamespace:
    found = _guests.get(header[0])  # another thread may have been faster
    if found is None:
        found = GuestNamespace(header)
        _spaces[id(vars(found.module))] = found
        _install(found)
        _guests[header[0]] = found  # last: who finds it there does not look further
    return found


def _install(space: GuestNamespace) -> None:
    """Let pickle and typing find the module, where no other has its name."""
    _, name, apart = space.header[0]
    if name == "__main__" and not any(other.header[0][1] == name for other in _guests.values() if other is not space):
        _replaced.append(sys.modules.get(name))  # somebody may run in it
        sys.modules[name] = space.module
    elif name and not apart:
        sys.modules.setdefault(name, space.module)
        vars(space.module)["__getattr__"] = partial(_from_here, space.module)
        imports.look_first(_meant)


def _from_here(module: ModuleType, name: str) -> Any:
    """What did not travel, because nothing that did is known to need it."""
    absent = AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    if name.startswith("__"):
        raise absent
    try:
        return getattr(imports.load_another(module.__name__, module), name)
    except ImportError:  # there is no other
        raise absent from None


def _meant(namespace: dict[str, Any], name: str) -> ModuleType | None:
    """The module of this name that came with the function whose namespace this is."""
    space = _spaces.get(id(namespace))
    if type(space) is not GuestNamespace or space.globals() is not namespace:
        return None
    found = _guests.get((space.header[0][0], name, 0))
    return None if found is None else found.module


_replaced: list[Any] = []
_provided: list[tuple[GuestNamespace, str, int]] | None = None  # by the function that is being loaded, if it is kept


class KeptFunction:
    """A function that is kept for many calls, with its namespace as it was when it was sent.

    Another function may have brought another value of the same name meanwhile, and calls need not come in
    the order in which they were submitted.
    """

    __slots__ = ("_function", "_names", "_seen", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._load()

    def _load(self) -> None:
        global _provided
        with lock:  # in workers only
            outer, _provided = _provided, []
            try:
                self._function: Callable[..., Any] = pickle.loads(self.data)
            finally:
                self._names, _provided = _provided, outer
            self._seen = changes

    def current(self) -> Callable[..., Any]:
        if self._seen != changes:
            if not all(space.has(name, version) for space, name, version in self._names):
                self._load()
            self._seen = changes
        return self._function


def provide(needs: Needs) -> None:
    wires, imports, sources = needs
    for filename, text in sources:
        import linecache  # here, so that a worker starts without it

        lines = text.splitlines(True)
        if linecache.cache.get(filename, (0, 0, None))[2:3] != (lines,):
            linecache.cache[filename] = (len(text), None, lines, filename)
    for name in imports:
        importlib.import_module(name)
    units = [unit for unit in wires if unit[0][0][0] != object_identity.token]
    if units:
        under(lock, _take, units)


def _take(units: list[Wire]) -> None:
    for header, name, version, data in units:
        guest(header).offer(name, version, data)
        if _provided is not None:
            _provided.append((guest(header), name, version))
    for header, name, _, _ in units:
        guest(header).take(name)


def find(origin: Origin) -> ModuleNamespace | None:
    """The namespace at home there, if it is alive."""
    return _origins.get(origin)


def _begin_child() -> None:
    """A fork is at home nowhere but in what it makes itself."""
    global lock
    lock = new_lock()
    for table in (_held, _spaces, _origins):
        table.clear()
    for space in _guests.values():
        _spaces[id(vars(space.module))] = space


os.register_at_fork(after_in_child=_begin_child)
