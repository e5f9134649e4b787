"""Snapshots of values, which show changes without pickling.

Constant values are compared by identity, functions and classes by the identity of their parts. A value that can change
unseen, such as a list, has no snapshot. A snapshot keeps nothing alive but constant values.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet
from enum import Enum
from types import (
    BuiltinFunctionType,
    CodeType,
    FunctionType,
    GetSetDescriptorType,
    MemberDescriptorType,
    MethodDescriptorType,
    ModuleType,
    WrapperDescriptorType,
)
from typing import Any, Protocol

from .importable import by_reference

LRU: type = type(functools.lru_cache(lambda: None))
EMPTY: Any = object()  # the content of an empty cell

_ATOMS = frozenset(
    (
        *(int, float, complex, bool, str, bytes, range, CodeType, ModuleType),
        *(type(None), type(...), type(NotImplemented), object),
    )
)
_DESCRIPTORS = (
    *(MemberDescriptorType, GetSetDescriptorType, BuiltinFunctionType),
    *(WrapperDescriptorType, MethodDescriptorType),
)
# Attributes of a class that follow from other attributes, or are never sent.
DERIVED = frozenset(
    (
        *("__annotations__", "__annotate_func__", "__annotations_cache__", "__dict__", "__weakref__"),
        *("__abstractmethods__", "_abc_impl", "__dataclass_fields__", "__dataclass_params__"),
        *("__parameters__", "__slotnames__", "_field_defaults"),
    )
)
_REPR_GUARDS = frozenset(("dataclasses", "reprlib"))  # modules whose wrappers note running reprs in a cell

Function = tuple["weakref.ref[FunctionType]", CodeType, "tuple[Any, ...] | None", "list[int] | None"]


class Snapshot:
    """The present state of a value."""

    __slots__ = ("_atoms", "_classes", "_functions", "_subject", "ids", "open")

    def __init__(self, value: Any) -> None:
        """Raise TypeError if the value can change unseen."""
        self._functions: list[Function] = []
        self._classes: list[tuple[weakref.ref[type], list[int]]] = []
        self._atoms: list[Any] = []  # kept alive, so that the ids stay valid
        self.ids: set[int] = set()  # of the objects in the value; valid as long as the value is unchanged
        self.open = False  # True if other values may share parts of this one: sentinels, and cells
        self._add(value, set())
        self.open |= not self._owns_functions()
        is_constant = not self._functions and not self._classes
        self._subject = (lambda: value) if is_constant else weakref.ref(value)

    def _owns_functions(self) -> bool:
        """Return True if all functions are methods of the classes, and so reached only through the classes."""
        classes = [f"{cls.__qualname__}." for reference, _ in self._classes if (cls := reference()) is not None]
        functions = [function for reference, *_ in self._functions if (function := reference()) is not None]
        return all(function.__qualname__.startswith(tuple(classes)) for function in functions)

    def unchanged(self, value: Any) -> bool:
        if self._subject() is not value:
            return False
        for reference, code, defaults, more in self._functions:
            function = reference()
            if function is None or function.__code__ is not code or function.__defaults__ is not defaults:
                return False
            if more is None:
                if function.__dict__ or function.__closure__ or function.__kwdefaults__:
                    return False
            elif more != [id(part) for part in _details(function)]:
                return False
        for class_reference, held in self._classes:
            cls = class_reference()
            if cls is None or held != [id(part) for part in _attributes(cls)]:
                return False
        return True

    def _add(self, value: Any, seen: set[int]) -> None:
        kind = type(value)
        self.ids.add(id(value))
        self.open |= kind is object
        if kind in _ATOMS or isinstance(value, Enum) or kind.__module__ == "dataclasses":
            self._atoms.append(value)
        elif kind in _PARTS:
            self._add_all(_PARTS[kind](value), seen)
            self._atoms.append(value)
        elif kind is BuiltinFunctionType and isinstance(value.__self__, ModuleType):
            self._atoms.append(value)
        elif kind is FunctionType or isinstance(value, type):
            self._add_code(value, seen)
        else:
            raise TypeError(f"a {kind.__name__} can change unseen")

    def _add_all(self, values: Iterable[Any], seen: set[int]) -> None:
        for value in values:
            self._add(value, seen)

    def _add_code(self, value: Any, seen: set[int]) -> None:
        if by_reference(value):
            self._atoms.append(value)
        elif id(value) not in seen:
            seen.add(id(value))
            if isinstance(value, type):
                self._add_class(value, seen)
            else:
                self._add_function(value, seen)

    def _add_function(self, function: FunctionType, seen: set[int]) -> None:
        details = _details(function)
        ids = [id(part) for part in details] if details else None
        self._functions.append((weakref.ref(function), function.__code__, function.__defaults__, ids))
        for cell in function.__closure__ or ():
            self.ids.add(id(cell))
            self.open |= not isinstance(content(cell), (FunctionType, type))
        self._add(function.__defaults__, seen)
        self._add_all((part for part in details if part is not EMPTY), seen)

    def _add_class(self, cls: type, seen: set[int]) -> None:
        held = _attributes(cls)
        self._classes.append((weakref.ref(cls), [id(part) for part in held]))
        if issubclass(cls, Enum):
            return
        for value in (*cls.__bases__, *held):
            if isinstance(value, _DESCRIPTORS) or type(value).__name__ == "_tuplegetter":
                self._atoms.append(value)
            else:
                self._add(value, seen)


_PARTS: dict[type, Callable[[Any], Iterable[Any]]] = {
    tuple: iter,
    frozenset: iter,
    LRU: lambda wrapper: (wrapper.__wrapped__,),
}
# Compared by their parts, because a reference to the object would keep the class alive.
_WRAPPED: dict[type, Callable[[Any], tuple[Any, ...]]] = {
    staticmethod: lambda method: (staticmethod, method.__func__),
    classmethod: lambda method: (classmethod, method.__func__),
    property: lambda prop: (property, prop.fget, prop.fset, prop.fdel),
}


def _details(function: FunctionType) -> list[Any]:
    """Return the parts absent in most functions: keyword defaults, attributes, and the contents of cells."""
    details: list[Any] = []
    for table in (function.__kwdefaults__, function.__dict__):
        if table:
            details += table
            details += table.values()
    if function.__closure__ and function.__globals__.get("__name__") not in _REPR_GUARDS:
        details += [content(cell) for cell in function.__closure__]
    return details


def _attributes(cls: type) -> list[Any]:
    parts: list[Any] = []
    for name, value in vars(cls).items():
        if name not in DERIVED:
            parts.append(name)
            parts += _WRAPPED.get(type(value), _itself)(value)
    return parts


def _itself(value: Any) -> tuple[Any, ...]:
    return (value,)


def content(cell: Any) -> Any:
    """Return the content of a cell, or EMPTY."""
    try:
        return cell.cell_contents
    except ValueError:
        return EMPTY


def snapshot(value: Any) -> Snapshot | None:
    """Return a snapshot of a value; None if the value can change unseen."""
    try:
        return Snapshot(value)
    except (TypeError, RecursionError):
        return None


class ChangeDetector(Protocol):
    """A snapshot, or a group of snapshots."""

    @property
    def ids(self) -> AbstractSet[int]: ...

    def unchanged(self, value: object) -> bool: ...


class SnapshotGroup:
    """The snapshots of several globals, unchanged only if each is."""

    def __init__(self, variables: Iterable[tuple[Any, str]], snapshots: list[Snapshot]) -> None:
        self._all = list(zip(variables, snapshots, strict=True))
        self.ids = frozenset().union(*(taken.ids for taken in snapshots))

    @staticmethod
    def of(variables: Iterable[tuple[Any, str]], snapshots: list[Snapshot | None]) -> SnapshotGroup | None:
        taken = [one for one in snapshots if one is not None]
        return SnapshotGroup(variables, taken) if len(taken) == len(snapshots) else None

    def unchanged(self, value: Any) -> bool:
        return all(taken.unchanged(space.globals().get(name)) for (space, name), taken in self._all)
