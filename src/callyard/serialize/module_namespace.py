"""The namespaces of functions sent by value: one for each module, in every process with such functions.

In the defining process, a `ModuleNamespace` stands for the namespace of the module. Nothing received from other
processes changes the module, and a returning function or class is the original object. In every other process the
namespace is a `NamespaceReplica`.
"""

from __future__ import annotations

import itertools
import os
import sys
from _weakref import ref  # `weakref` is more than a job needs to begin
from types import FunctionType, MappingProxyType, ModuleType

from ..utils.lite_stdlib import TYPE_CHECKING, Any
from ..utils.locks import new_lock, under
from . import definition_identity
from .definition_identity import WeakValues

if TYPE_CHECKING:
    from collections.abc import Mapping
    from collections.abc import Set as AbstractSet

    from .change_detection import ChangeDetector

Origin = tuple[str, str, int]  # (name of the defining process, module, 0 or a number for further ones of the name)
# The data for a replica of the namespace: origin and module attributes.
Header = tuple[Origin, "tuple[tuple[str, Any], ...]"]
GlobalName = tuple[Header, str]
# A global, the version of its value, and the pickle of the value; None for a deleted global.
PickledGlobal = tuple[Header, str, int, "bytes | None"]
# The needs of a function before a run: globals, submodules, and texts by file name. Plain tuples, because each pickle
# contains them.
Needs = tuple["tuple[PickledGlobal, ...]", "tuple[str, ...]", "tuple[tuple[str, str], ...]"]

_HEADER_ATTRIBUTES = ("__name__", "__package__", "__file__", "__path__")
UNSENT = frozenset((*_HEADER_ATTRIBUTES, "__builtins__", "__getattr__", "__spec__", "__loader__", "__cached__"))

# Guards the tables below, and replicas while a pickle changes them.
lock = new_lock()


class ModuleNamespace:
    """The namespace of a module of this process, or of code executed in a dictionary."""

    __slots__ = ("__weakref__", "_holders", "header", "sent", "sent_far")

    def __init__(self, header: Header, holder: Any) -> None:
        self.header = header
        self.sent: dict[str, SentGlobals] = {}  # the globals as sent last, by name
        self.sent_far: dict[str, SentGlobals] = {}  # likewise, to other computers, where fewer modules are found
        # The module, or functions of executed code. Weak references, so that sending a function keeps nothing alive;
        # the dictionary itself cannot be referred to weakly.
        self._holders = [ref(holder)]

    @property
    def foreign(self) -> bool:
        """True if another process defines the functions."""
        return self.header[0][0] != definition_identity.process_name

    def held_by(self, function: FunctionType) -> None:
        """Note one more function with this dictionary."""
        if all(holder() is not function for holder in self._holders):
            self._holders = [h for h in self._holders if h() is not None] + [ref(function)]

    def holder(self) -> Any:
        """Return the module, or a function with these globals; None if all are gone."""
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


Variable = tuple[ModuleNamespace, str]  # a name in a namespace
_NO_REFS: Mapping[Variable, int] = MappingProxyType({})
_versions = itertools.count(1)


def new_version() -> int:
    """Return a number that no other version or content has."""
    return next(_versions)


class SentGlobals:
    """The value of a global as sent, or the values of several globals that share objects."""

    __slots__ = (
        *("bound", "content", "data", "functions", "ids"),
        *("links", "reaches", "refs", "snapshot", "variables", "version"),
    )

    def __init__(
        self,
        data: bytes | None,
        variables: tuple[Variable, ...],
        content: int = 0,
        refs: Mapping[Variable, int] = _NO_REFS,
        functions: Mapping[Variable, int] = _NO_REFS,
    ) -> None:
        self.version = new_version()
        self.content = content  # a number that changes with data, globals and references
        self.data, self.variables = data, variables
        self.refs = refs  # other globals with objects in this value, with their versions
        # Functions named in this value, with their contents: the reader makes another function for a new content.
        self.functions = functions
        self.snapshot: ChangeDetector | None = None
        self.reaches: tuple[Variable, ...] = ()
        self.links: AbstractSet[Variable] = frozenset()  # globals needed by the reader of the pickle
        self.bound: Mapping[Variable, int] = _NO_REFS  # the ids of their values, when the pickle was made
        self.ids: AbstractSet[int] = frozenset()  # of objects perhaps shared; valid as long as the snapshot holds

    def has_content(self, data: bytes | None, variables: tuple[Variable, ...], refs: Mapping[Variable, int]) -> bool:
        return self.data == data and self.variables == variables and self.refs == refs


# -- the namespaces of this process ------------------------------------------------------------------------

_spaces = WeakValues()  # by id of the dictionary
_origins = WeakValues()  # by origin
_held: dict[int, tuple[ref[Any], ModuleNamespace]] = {}  # by id of a holder, which keeps the namespace alive


def space_of(function: FunctionType) -> ModuleNamespace:
    """Return the namespace of a function sent by value."""
    namespace = function.__globals__
    space = of_globals(namespace)
    if space is None:
        module = sys.modules.get(namespace.get("__name__", ""))
        is_modules = module is not None and vars(module) is namespace
        return _new_space(namespace, module if is_modules else function, not is_modules)
    if space.header[0][2]:
        _hold(function, space)
        space.held_by(function)
    return space


def spaces() -> list[ModuleNamespace]:
    return _spaces.values()


def space_of_module(module: ModuleType) -> ModuleNamespace:
    """Return the namespace of a module sent by value."""
    namespace = vars(module)
    is_another = sys.modules.get(module.__name__) is not module
    return of_globals(namespace) or _new_space(namespace, module, is_another)


def of_globals(namespace: dict[str, Any]) -> ModuleNamespace | None:
    """Return the namespace with this dictionary; None if there is none."""
    space: ModuleNamespace | None = _spaces.get(id(namespace))  # perhaps of a dead dictionary with the same id
    return space if space is not None and space.globals() is namespace else None


def _new_space(namespace: dict[str, Any], holder: Any, is_another: bool) -> ModuleNamespace:
    attributes = tuple((name, namespace[name]) for name in _HEADER_ATTRIBUTES if _is_plain(namespace.get(name)))
    return under(lock, _enter, namespace, attributes, holder, is_another)


def _enter(namespace: dict[str, Any], attributes: Any, holder: Any, is_another: bool) -> ModuleNamespace:
    number = next(definition_identity.numbers) if is_another else 0
    origin = (definition_identity.process_name, str(namespace.get("__name__", "")), number)
    # Another thread may have entered the namespace meanwhile.
    space = of_globals(namespace) or ModuleNamespace((origin, attributes), holder)
    _hold(holder, space)
    _spaces[id(namespace)] = _origins[space.header[0]] = space
    return space


def _hold(holder: Any, space: ModuleNamespace) -> None:
    """Keep a namespace alive for as long as this holder is."""
    number, held = id(holder), _held  # an own name, because at the interpreter's exit the module's names may be gone

    def let_go(reference: ref[Any]) -> None:
        if number in held and held[number][0] is reference:
            del held[number]

    held[number] = ref(holder, let_go), space


def _is_plain(value: Any) -> bool:
    return type(value) is str or (type(value) is list and all(type(item) is str for item in value))


def find(origin: Origin) -> ModuleNamespace | None:
    """Return the namespace of this process with this origin; None if there is none any more."""
    found: ModuleNamespace | None = _origins.get(origin)
    return found


def enter_replica(space: ModuleNamespace) -> None:
    """Enter a replica into the table, by its dictionary."""
    _spaces[id(space.globals())] = space


def _begin_child() -> None:
    """Forget all namespaces in a fork, which is the defining process only of functions made after the fork."""
    global lock
    lock = new_lock()
    _held.clear()
    _spaces.clear()
    _origins.clear()


os.register_at_fork(after_in_child=_begin_child)
