"""The replicas of namespaces from other processes.

A replica is a module of its own. Globals are set from pickles with versions, which travel with the functions. A global
is stored only if the version differs from the last one received. So a value set by an initializer stays, until the
value changes in the sending process.
"""

from __future__ import annotations

import _pickle as pickle
import builtins
import os
import sys
from types import ModuleType

from ..utils.lite_stdlib import Any, Callable
from ..utils.locks import under
from . import definition_identity, module_namespace
from .module_namespace import GlobalName, Header, ModuleNamespace, Needs, Origin, PickledGlobal

changes = 0  # number of changes of all replicas so far; an unchanged number before a call proves all globals unchanged

_LENT = 0  # the version of a lent value, which no sender uses
_NONE: Any = object()  # no value
_Saved = tuple["int | None", Any, Any]  # version and value as received, and the present value of the name


class JointValues(tuple["tuple[GlobalName, Any]", ...]):
    """Globals with their values, received in one pickle."""

    __slots__ = ()


class NamespaceReplica(ModuleNamespace):
    """A namespace with functions from another process."""

    __slots__ = ("_loading", "_pending", "_received", "_saved", "hooked", "module", "values")

    def __init__(self, header: Header) -> None:
        module = ModuleType(header[0][1])
        vars(module).update(header[1], __builtins__=builtins)
        super().__init__(header, module)
        self.module = module
        self.values: dict[str, Any] = {}  # as received; the names may have other values by now
        self._received: dict[str, int] = {}  # versions
        self._saved: dict[str, _Saved] = {}  # while other values are lent
        self._pending: dict[str, tuple[int, bytes | None]] = {}  # offered, and not taken yet
        self._loading: dict[str, bytes] = {}  # being unpickled further up the stack
        self.hooked = False  # True with a `__getattr__` of ours, which asks the received one

    def globals(self) -> dict[str, Any]:
        return vars(self.module)

    def offer(self, name: str, version: int, data: bytes | None) -> None:
        """Note the pickle of a global, unless this version was received before."""
        self._take_back(name)
        if not self.has(name, version):
            self._pending[name] = (version, data)

    def take(self, name: str) -> None:
        """Load and store the offered pickle. Its own needs are taken first, in the middle of the unpickling."""
        global changes
        offered = self._pending.pop(name, None)
        if offered is None:
            return
        version, data = offered
        changes += 1
        self.values.pop(name, None)
        if data is None:
            self._bind(name, _NONE)
            self._received[name] = version
            return
        value = self._load(name, data)
        if type(value) is not JointValues:
            self._store(name, version, value)
            return
        for (header, other), one in value:
            replica(header)._store(other, version, one)

    def _load(self, name: str, data: bytes) -> Any:
        self._loading[name] = data
        try:
            return pickle.loads(data)
        finally:
            self._loading.pop(name, None)

    def _store(self, name: str, version: int, value: Any) -> None:
        self._pending.pop(name, None)
        self._saved.pop(name, None)
        self.values[name] = value
        self._bind(name, value)
        self._received[name] = version

    def _bind(self, name: str, value: Any) -> None:
        if not (self.hooked and name == "__getattr__"):
            _set(vars(self.module), name, value)

    def set_aside(self, name: str) -> None:
        """Save the present value, before another value is lent."""
        self._take_back(name)
        self._saved[name] = (self._received.get(name), self.values.get(name, _NONE), self._bound(name))

    def lend(self, name: str, value: Any) -> None:
        """Give the name this value until the next offer, unless code of this process has set a value of its own."""
        global changes
        _, received, bound = self._saved[name]
        if bound is received or bound is _NONE:
            self._bind(name, value)
        self.values[name] = value
        self._received[name] = _LENT
        changes += 1

    def _take_back(self, name: str) -> None:
        """Restore the saved value, after the call with a lent one."""
        saved = self._saved.pop(name, None)
        if saved is None:
            return
        version, received, bound = saved
        if self._bound(name) is self.values.get(name, _NONE):  # the call has not set the name
            _set(vars(self.module), name, bound)
        _set(self.values, name, received)
        self._received[name] = _LENT if version is None else version

    def _bound(self, name: str) -> Any:
        return vars(self.module).get(name, _NONE)

    def has(self, name: str, version: int) -> bool:
        return self._received.get(name) == version

    def value(self, name: str) -> Any:
        """Return the function or class as received; the name may have another value by now."""
        self.take(name)
        if name in self.values:
            return self.values[name]
        if (
            name in self._loading
        ):  # of a class with a base that refers to it; the base is here already, so the class can be made
            return _of(self, name, pickle.loads(self._loading[name]))
        return vars(self.module)[name]


def _of(space: NamespaceReplica, name: str, loaded: Any) -> Any:
    if type(loaded) is not JointValues:
        return loaded
    return next(value for (header, other), value in loaded if other == name and replica(header) is space)


def _set(table: dict[str, Any], name: str, value: Any) -> None:
    if value is _NONE:
        table.pop(name, None)
    else:
        table[name] = value


# -- the replicas of this process --------------------------------------------------------------------------

_replicas: dict[Origin, NamespaceReplica] = {}


def replica(header: Header) -> NamespaceReplica:
    """Return the replica of a namespace, made at its first use."""
    found = _replicas.get(header[0])
    if found is None:
        found = under(module_namespace.lock, _new_replica, header)
    return found


def _new_replica(header: Header) -> NamespaceReplica:
    found = _replicas.get(header[0])  # another thread may have been faster
    if found is None:
        found = NamespaceReplica(header)
        module_namespace.enter_replica(found)
        _install(found)
        _replicas[header[0]] = found  # last, because other threads read this table without the lock
    return found


def _install(space: NamespaceReplica) -> None:
    """Enter the module into `sys.modules` for pickle and typing, unless another module has the name."""
    _, name, number = space.header[0]
    if name == "__main__" and not any(other.header[0][1] == name for other in _replicas.values() if other is not space):
        _replaced.append(sys.modules.get(name))  # kept alive, because the code of this module may be running
        sys.modules[name] = space.module
    elif name and not number:
        sys.modules.setdefault(name, space.module)
        from . import import_statements  # here and below, because a script's functions, of `__main__`, need none of it

        module = space.module
        space.hooked = True
        vars(module)["__getattr__"] = lambda attribute: _unsent_attribute(space, attribute)
        import_statements.look_first(_imported_module)


def _unsent_attribute(space: NamespaceReplica, name: str) -> Any:
    """Return an attribute not received: a submodule from the same process, what the module's own `__getattr__` gives,
    or the attribute of the importable module of the same name.
    """
    module = space.module
    absent: Exception = AttributeError(f"module {module.__name__!r} has no attribute {name!r}")
    if name.startswith("__"):
        raise absent
    inner = _replicas.get((space.header[0][0], f"{module.__name__}.{name}", 0))
    if inner is not None:
        return inner.module
    if "__getattr__" in space.values:
        try:
            return space.values["__getattr__"](name)
        except (AttributeError, ImportError) as error:
            absent = error
    from . import import_statements

    try:
        return getattr(import_statements.load_another(module.__name__, module), name)
    except (AttributeError, ImportError):  # such a module cannot be imported here, or has no such name, too
        raise absent from None


def _imported_module(namespace: dict[str, Any], name: str) -> ModuleType | None:
    """Return the module from the same process as the namespace, for an import statement in a received function."""
    space = module_namespace.of_globals(namespace)
    if type(space) is not NamespaceReplica:
        return None
    found = _replicas.get((space.header[0][0], name, 0))
    return None if found is None else found.module


_replaced: list[Any] = []
_provided: list[tuple[NamespaceReplica, str, int]] | None = None  # the globals of the function now being loaded


class LoadedFunction:
    """A function loaded once for many calls, with its globals as at the time of sending.

    Another function may bring another value of the same global between two calls, and calls need not arrive in order of
    submission. Then the function is loaded again.
    """

    __slots__ = ("_function", "_names", "_seen", "data")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self._load()

    def _load(self) -> None:
        global _provided
        with module_namespace.lock:  # only workers load functions, so no submit waits for this
            outer, _provided = _provided, []
            try:
                self._function: Callable[..., Any] = pickle.loads(self.data)
            finally:
                self._names, _provided = _provided, outer
            self._seen = changes

    def current(self) -> Callable[..., Any]:
        """Return the function, with the right values of its globals."""
        if self._seen != changes:
            if not all(space.has(name, version) for space, name, version in self._names):
                self._load()
            self._seen = changes
        return self._function


class UnloadableFunction:
    """The placeholder of a function that could not be loaded here: each call of the function fails with the error."""

    def __init__(self, error: BaseException) -> None:
        self.error = error
        self.data: bytes | None = None

    def current(self) -> Callable[..., Any]:
        raise self.error


def provide(needs: Needs) -> None:
    """Store the globals, import the modules and enter the source texts for a function, before its creation."""
    pickled, imports, sources = needs
    for filename, text in sources:
        import linecache  # here, so that a worker starts without this module

        lines = text.splitlines(True)
        if linecache.cache.get(filename, (0, 0, None))[2:3] != (lines,):
            linecache.cache[filename] = (len(text), None, lines, filename)
    if imports:
        import importlib

        for name in imports:
            importlib.import_module(name)
    foreign = [one for one in pickled if one[0][0][0] != definition_identity.process_name]
    if foreign:
        under(module_namespace.lock, _take, foreign)


def _take(pickled: list[PickledGlobal]) -> None:
    for header, name, version, data in pickled:  # all offers first, because the pickles may refer to each other
        replica(header).offer(name, version, data)
        if _provided is not None:
            _provided.append((replica(header), name, version))
    for header, name, _, _ in pickled:
        replica(header).take(name)


def _begin_child() -> None:
    for space in _replicas.values():  # a fork uses received functions as its parent did
        module_namespace.enter_replica(space)


os.register_at_fork(after_in_child=_begin_child)  # registered after `module_namespace`, whose hook clears the table
