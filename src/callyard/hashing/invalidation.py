"""The dependencies of a walk's result, and the check for changes.

Names and parts of definitions are compared by identity, mutable values by their tokens. No user object is kept alive:
functions, classes and modules are held by weak references, and everything else is read through these.
"""

from __future__ import annotations

import sys
from abc import ABCMeta
from collections.abc import Callable, Iterable
from functools import lru_cache, partial
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any, NamedTuple
from weakref import ReferenceType, ref

from ..serialize.change_detection import content
from . import value_caches
from .class_attributes import members, registered
from .encoder import LenientEncoder
from .types import own_docstring

MISSING: Any = object()
_BY_TOKEN: Any = object()  # the handle of a value for comparison by token
_ATOMS = frozenset((int, float, complex, bool, str, bytes, range, type(None), type(...), type(NotImplemented)))
_FUNCTIONS = frozenset((FunctionType, MethodType, partial, type(lru_cache(len))))
Read = Callable[[], Any]  # returns the present value


class _ProcessEncoder(LenientEncoder):
    """An encoder for comparisons in this process: definitions count by identity, as each has an entry of its own."""

    def definition(self, thing: Any) -> bytes:
        return f"d{id(thing)} {getattr(thing, '__qualname__', '')}".encode("utf-8", "surrogatepass")

    def sentinel(self, value: Any) -> bytes:
        return b"o%d" % id(value)


class _Descriptor(NamedTuple):
    """The handle of a property or its like: by its parts, because no other reference holds the object."""

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
    size: int  # number of attributes
    bases: list[Any]
    handles: list[tuple[str, Any]]


class ChangeWatch:
    """The dependencies of a result: noted during the walk, and compared with the present state later."""

    __slots__ = (
        *("_by_token", "_classes", "_encoder", "_functions", "_kinds", "_libraries", "_modules", "_names", "_seen"),
        *("_values", "_whole", "is_described"),
    )

    def __init__(self) -> None:
        self._names: dict[int, tuple[Any, list[tuple[str, Any]]]] = {}  # by id of a namespace: its holder, and handles
        self._functions: list[_Function] = []
        self._classes: list[_Class] = []
        self._modules: list[tuple[str, Any]] = []
        self._whole: list[tuple[Any, set[str]]] = []
        self._kinds: dict[int, tuple[Any, Any]] = {}  # modules that were read, and their classes
        # By id of an installed module: the module, and names in it with the types and references of their values.
        self._libraries: dict[int, tuple[Any, list[tuple[str, Any, Any]]]] = {}
        self._values: list[tuple[Read, bytes]] = []
        self._by_token: list[tuple[Any, str]] = []  # holders, and names with values compared by token
        self.is_described = True  # False if a dependency is beyond the descriptions of `imported_code`
        self._seen: set[tuple[int, str]] = set()
        self._encoder: _ProcessEncoder | None = _ProcessEncoder()

    # -- noting ----------------------------------------------------------------------------------------

    def name(self, holder: Any, name: str, value: Any) -> None:
        """Note the value of a name in the globals of a function, or in a module."""
        space = _space(holder)
        if (id(space), name) in self._seen:
            return
        self._seen.add((id(space), name))
        owner, names = self._names.setdefault(id(space), (ref(holder), []))
        handle = value if value is MISSING else _handle(value)
        if handle is not _BY_TOKEN:
            names.append((name, handle))
        else:
            self._by_token.append((owner, name))
            self._part(lambda: _space(owner()).get(name, MISSING))

    def library_name(self, module: ModuleType, name: str, value: Any) -> None:
        """Note the value of a name in an installed module: a function or the like itself, of another value the type."""
        if (id(module), name) not in self._seen:
            self._seen.add((id(module), name))
            is_definition = type(value) in _FUNCTIONS or isinstance(value, (type, ModuleType))
            names = self._libraries.setdefault(id(module), (ref(module), []))[1]
            names.append((name, type(value), ref(value) if is_definition else None))

    def function(self, function: FunctionType) -> None:
        """Note the parts of a function."""
        me = ref(function)
        defaults, more = _handle(function.__defaults__), _handle(function.__kwdefaults__)
        closure = function.__closure__ or ()
        cells = [(number, _handle(content(closure[number]))) for number in value_caches.cell_numbers(function)]
        details = bool(function.__dict__)
        self._functions.append(_Function(me, function.__name__, function.__code__, defaults, more, details, cells))
        if defaults is _BY_TOKEN:
            self._part(lambda: me().__defaults__)  # type: ignore[union-attr]
        if more is _BY_TOKEN:
            self._part(lambda: me().__kwdefaults__)  # type: ignore[union-attr]
        if details:
            self._part(lambda: value_caches.attributes(me()))  # type: ignore[arg-type]
        for number, handle in cells:
            if handle is _BY_TOKEN:
                self._part(lambda number=number: content(me().__closure__[number]))  # type: ignore[misc, union-attr, index]

    def class_(self, cls: type) -> None:
        """Note the attributes and bases of a class."""
        me = ref(cls)
        handles = [(name, _handle(value)) for name, value in members(cls).items()]
        bases = [*map(ref, (type(cls), *cls.__bases__))]
        self._classes.append(_Class(me, cls.__name__, cls.__qualname__, len(vars(cls)), bases, handles))
        if isinstance(cls, ABCMeta):
            self.value(lambda: registered(me()))  # type: ignore[arg-type]
        for name, handle in handles:
            if handle is _BY_TOKEN and name != "__dataclass_fields__":  # only the creation of methods used this
                self._part(lambda name=name: members(me()).get(name, MISSING))  # type: ignore[misc, arg-type]

    def module(self, name: str) -> None:
        """Note the module under this name for an import statement, or its absence."""
        found = sys.modules.get(name)
        self._modules.append((name, found if found is None else ref(found)))

    def kind(self, module: ModuleType) -> None:
        """Note the class of a module, which a program may exchange."""
        self._kinds[id(module)] = ref(module), ref(type(module))

    def whole(self, module: ModuleType) -> None:
        """Note the complete set of names in a module."""
        self.is_described = False
        self._whole.append((ref(module), set(vars(module))))

    def choice(self, thing: Any, chosen: Any) -> None:
        """Note the settings of `keyed` for a definition."""
        me = ref(thing)
        self.value(lambda: vars(me()).get("__callyard_keyed__") == chosen)

    def value(self, read: Read) -> None:
        """Note the present token of the value returned by `read`."""
        self.is_described = False
        self._part(read)

    def _part(self, read: Read) -> None:
        """Note the token of a part of a definition, or of a name's value."""
        assert self._encoder is not None
        self._values.append((read, self._encoder.token(read())))

    def complete(self) -> None:
        """End the noting, and free everything needed only for noting."""
        self._encoder = None
        self._seen.clear()

    # -- telling others --------------------------------------------------------------------------------

    def modules(self) -> list[str]:
        """Return the names of modules imported by functions."""
        return [name for name, _ in self._modules]

    def definitions(self) -> list[Any]:
        """Return the functions and classes, as long as nothing has changed."""
        return [noted.function() for noted in self._functions] + [noted.class_() for noted in self._classes]

    def names(self) -> list[tuple[Any, str]]:
        """Return the names, each with the function or module that has it among its globals."""
        found = [(owner(), name) for owner, names in self._names.values() for name, _ in names]
        return found + [(owner(), name) for owner, name in self._by_token]

    # -- comparing -------------------------------------------------------------------------------------

    def unchanged(self) -> bool:
        """Return True if all is as noted. Called for the key of each call, so the common part is inline."""
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
        if self._libraries and not self._libraries_unchanged():
            return False
        return not (self._classes or self._modules or self._whole or self._values) or self._rest_unchanged()

    def _libraries_unchanged(self) -> bool:
        for library, names in self._libraries.values():
            if (module := library()) is None:
                return False
            space = module.__dict__
            for name, kind, handle in names:
                value = space.get(name, MISSING)
                if type(value) is not kind or (handle is not None and handle() is not value):
                    return False
        return True

    def _rest_unchanged(self) -> bool:
        for name, found in self._modules:
            if sys.modules.get(name) is not (found if found is None else found()):
                return False
        for owner, names in self._whole:
            if (module := owner()) is None or vars(module).keys() != names:
                return False
        if not all(map(_same_class, self._classes)):
            return False
        encoder = _ProcessEncoder()
        try:
            return all(encoder.token(read()) == token for read, token in self._values)
        except Exception:  # a weak reference is dead, or code of the user's fails
            return False


def _space(holder: Any) -> dict[str, Any]:
    space: dict[str, Any] = holder.__globals__ if type(holder) is FunctionType else vars(holder)
    return space


def _same_parts(function: FunctionType, noted: _Function) -> bool:
    if not (_same(noted.defaults, function.__defaults__) and _same(noted.more, function.__kwdefaults__)):
        return False
    if noted.cells:
        closure = function.__closure__ or ()
        if not all(_same(handle, content(closure[number])) for number, handle in noted.cells):
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
    if [*map(id, (type(cls), *cls.__bases__))] != [id(one()) for one in noted.bases]:
        return False
    found = members(cls)
    return all(_same(handle, found.get(name, MISSING)) for name, handle in noted.handles)


def _handle(value: Any) -> Any:
    """Return an object that identifies a value, without a reference that could keep the value's holder alive."""
    if _is_atomic(value):
        return value
    kind = type(value)
    if kind is FunctionType or issubclass(kind, (type, ModuleType)) or _is_plain_builtin(value):
        return ref(value)
    if kind in (property, staticmethod, classmethod):
        handles = [*map(_handle, _parts(value))]
        return _BY_TOKEN if any(one is _BY_TOKEN for one in handles) else _Descriptor(kind, handles)
    return _BY_TOKEN


def _is_atomic(value: Any) -> bool:
    kind = type(value)
    return kind in _ATOMS or (kind in (tuple, frozenset) and all(map(_is_atomic, value)))


def _is_plain_builtin(value: Any) -> bool:
    return type(value) is BuiltinFunctionType and isinstance(value.__self__, (ModuleType, type(None)))


def _parts(value: Any) -> Iterable[Any]:
    own = own_docstring(value)
    return (value.fget, value.fset, value.fdel, own) if type(value) is property else (value.__func__, own)


def _same(handle: Any, value: Any) -> bool:
    """Return True if a handle was made of this value. Values without a handle are compared by token elsewhere."""
    if handle is value or handle is _BY_TOKEN:
        return True
    if type(handle) is ReferenceType:
        return handle() is value
    if type(handle) is not _Descriptor or type(value) is not handle.kind:
        return False
    return all(map(_same, handle.handles, _parts(value)))
