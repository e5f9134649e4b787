"""Whether what a walk looked at is what it was.

Names and parts are compared by identity, and what can change by its token. Nothing of the user's is kept alive:
functions, classes and modules are held by weak references, and the rest is reached through them.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any, NamedTuple
from weakref import ReferenceType, ref

from . import value_caches
from .classes import members, registered
from .types import own_docstring
from .values import Lenient

MISSING: Any = object()
_LOOKED: Any = object()  # stands for what is compared by its token
_ATOMS = frozenset((int, float, complex, bool, str, bytes, range, type(None), type(...), type(NotImplemented)))
Look = Callable[[], Any]


class _Looks(Lenient):
    """Makes tokens that hold inside this process, where what is defined is watched by itself."""

    def definition(self, thing: Any) -> bytes:
        return f"d{id(thing)} {getattr(thing, '__qualname__', '')}".encode("utf-8", "surrogatepass")

    def sentinel(self, value: Any) -> bytes:
        return b"o%d" % id(value)


class _Pieces(NamedTuple):
    """A property or its like: only what it is made of counts."""

    kind: type
    handles: list[Any]


class _Function(NamedTuple):
    function: Callable[[], Any]
    name: str
    code: Any
    defaults: Any
    more: Any
    details: bool
    cells: list[tuple[int, Any]]


class _Class(NamedTuple):
    class_: Callable[[], Any]
    name: str
    qualified: str
    size: int  # how many attributes it has
    above: list[Any]
    handles: list[tuple[str, Any]]


class ChangeWatch:
    """Notes what was looked at, and compares later."""

    __slots__ = ("_classes", "_encoder", "_functions", "_kinds", "_looks", "_modules", "_names", "_seen", "_whole")

    def __init__(self) -> None:
        self._names: dict[int, tuple[Any, list[tuple[str, Any]]]] = {}  # by namespace: who has it, and what is in it
        self._functions: list[_Function] = []
        self._classes: list[_Class] = []
        self._modules: list[tuple[str, Any]] = []
        self._whole: list[tuple[Any, set[str]]] = []
        self._kinds: dict[int, tuple[Any, Any]] = {}  # of modules that were looked into, their classes
        self._looks: list[tuple[Look, bytes]] = []
        self._seen: set[tuple[int, str]] = set()
        self._encoder: _Looks | None = _Looks()

    # -- noting ----------------------------------------------------------------------------------------

    def name(self, holder: Any, name: str, value: Any) -> None:
        """That this name has this value in the globals of a function, or in a module."""
        space = _space(holder)
        if (id(space), name) in self._seen:
            return
        self._seen.add((id(space), name))
        owner, names = self._names.setdefault(id(space), (ref(holder), []))
        handle = value if value is MISSING else _handle(value)
        if handle is not _LOOKED:
            names.append((name, handle))
        else:
            self.look(lambda: _space(owner()).get(name, MISSING))

    def function(self, function: FunctionType) -> None:
        me = ref(function)
        defaults, more = _handle(function.__defaults__), _handle(function.__kwdefaults__)
        closure = function.__closure__ or ()
        cells = [(number, _handle(_content(closure[number]))) for number in value_caches.cell_numbers(function)]
        details = bool(function.__dict__)
        self._functions.append(_Function(me, function.__name__, function.__code__, defaults, more, details, cells))
        if defaults is _LOOKED:
            self.look(lambda: me().__defaults__)  # type: ignore[union-attr]
        if more is _LOOKED:
            self.look(lambda: me().__kwdefaults__)  # type: ignore[union-attr]
        if details:
            self.look(lambda: value_caches.attributes(me()))  # type: ignore[arg-type]
        for number, handle in cells:
            if handle is _LOOKED:
                self.look(lambda number=number: _content(me().__closure__[number]))  # type: ignore[misc, union-attr, index]

    def class_(self, cls: type) -> None:
        me = ref(cls)
        handles = [(name, _handle(value)) for name, value in members(cls).items()]
        above = [*map(ref, (type(cls), *cls.__bases__))]
        self._classes.append(_Class(me, cls.__name__, cls.__qualname__, len(vars(cls)), above, handles))
        if isinstance(cls, ABCMeta):
            self.look(lambda: registered(me()))  # type: ignore[arg-type]
        for name, handle in handles:
            if handle is _LOOKED and name != "__dataclass_fields__":  # its methods were made from that once
                self.look(lambda name=name: members(me()).get(name, MISSING))  # type: ignore[misc, arg-type]

    def module(self, name: str) -> None:
        """That this module, or none, is what an import statement finds."""
        found = sys.modules.get(name)
        self._modules.append((name, found if found is None else ref(found)))

    def kind(self, module: ModuleType) -> None:
        self._kinds[id(module)] = ref(module), ref(type(module))

    def whole(self, module: ModuleType) -> None:
        self._whole.append((ref(module), set(vars(module))))

    def choice(self, thing: Any, chosen: Any) -> None:
        me = ref(thing)
        self.look(lambda: vars(me()).get("__callyard_keyed__") == chosen)

    def look(self, look: Look) -> None:
        """That what `look()` gives means what it means now."""
        assert self._encoder is not None
        self._looks.append((look, self._encoder.token(look())))

    def complete(self) -> None:
        self._encoder = None
        self._seen.clear()

    # -- comparing -------------------------------------------------------------------------------------

    def unchanged(self) -> bool:
        for owner, names in self._names.values():
            holder = owner()
            if holder is None:
                return False
            space = holder.__globals__ if type(holder) is FunctionType else holder.__dict__
            for name, handle in names:
                value = space.get(name, MISSING)
                if value is not handle and (type(handle) is not ReferenceType or handle() is not value):
                    return False
        for noted in self._functions:
            function = noted.function()
            if function is None or function.__code__ is not noted.code or not _same_parts(function, noted):
                return False
        if not all(type(module()) is kind() for module, kind in self._kinds.values()):
            return False
        return not (self._classes or self._modules or self._whole or self._looks) or self._rest_unchanged()

    def _rest_unchanged(self) -> bool:
        for name, found in self._modules:
            if sys.modules.get(name) is not (found if found is None else found()):
                return False
        for owner, names in self._whole:
            if (module := owner()) is None or vars(module).keys() != names:
                return False
        if not all(map(_same_class, self._classes)):
            return False
        encoder = _Looks()
        try:
            return all(encoder.token(look()) == token for look, token in self._looks)
        except Exception:  # something in it is gone, or cannot tell
            return False


def _space(holder: Any) -> dict[str, Any]:
    space: dict[str, Any] = holder.__globals__ if type(holder) is FunctionType else vars(holder)
    return space


def _same_parts(function: FunctionType, noted: _Function) -> bool:
    if not (_same(noted.defaults, function.__defaults__) and _same(noted.more, function.__kwdefaults__)):
        return False
    if noted.cells:
        closure = function.__closure__ or ()
        if not all(_same(handle, _content(closure[number])) for number, handle in noted.cells):
            return False
    if function.__name__ != noted.name:
        return False
    return noted.details or not function.__dict__


def _same_class(noted: _Class) -> bool:
    cls = noted.class_()
    if cls is None or len(vars(cls)) != noted.size:
        return False
    if cls.__name__ != noted.name or cls.__qualname__ != noted.qualified:
        return False
    if [*map(id, (type(cls), *cls.__bases__))] != [id(one()) for one in noted.above]:
        return False
    found = members(cls)
    return all(_same(handle, found.get(name, MISSING)) for name, handle in noted.handles)


def _handle(value: Any) -> Any:
    """What a value can be recognised by without keeping alive what might lead back to its owner."""
    if _is_atomic(value):
        return value
    kind = type(value)
    if kind is FunctionType or issubclass(kind, (type, ModuleType)) or _is_plain_builtin(value):
        return ref(value)
    if kind in (property, staticmethod, classmethod):
        handles = [*map(_handle, _pieces(value))]
        return _LOOKED if _LOOKED in handles else _Pieces(kind, handles)
    return _LOOKED


def _is_atomic(value: Any) -> bool:
    kind = type(value)
    return kind in _ATOMS or (kind in (tuple, frozenset) and all(map(_is_atomic, value)))


def _is_plain_builtin(value: Any) -> bool:
    return type(value) is BuiltinFunctionType and isinstance(value.__self__, (ModuleType, type(None)))


def _pieces(value: Any) -> Iterable[Any]:
    own = own_docstring(value)
    return (value.fget, value.fset, value.fdel, own) if type(value) is property else (value.__func__, own)


def _same(handle: Any, value: Any) -> bool:
    """Whether a value is the one that a handle was made of; that of others is told by their tokens."""
    if handle is value or handle is _LOOKED:
        return True
    if type(handle) is ReferenceType:
        return handle() is value
    if type(handle) is not _Pieces or type(value) is not handle.kind:
        return False
    return all(map(_same, handle.handles, _pieces(value)))


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:
        return MISSING
