"""The attributes of a class for its token, and its registered subclasses."""

from __future__ import annotations

import abc
from abc import ABCMeta
from enum import EnumMeta
from types import FunctionType
from typing import Any

from .packages import module_of

# Attributes without effect, or derived from the others.
_SILENT = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"),
        *("__static_attributes__", "__abstractmethods__", "_abc_impl", "__slotnames__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__annotations_cache__", "__classdictcell__", "__classcell__"),
        *("__parameters__", "__type_params__", "__dataclass_params__"),
        # Made by pydantic from the rest: some contain addresses, some appear only at their first use.
        *("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"),
        *("__pydantic_decorators__", "__pydantic_parent_namespace__", "__signature__"),
        "__pydantic_setattr_handlers__",
    )
)


_METHODS = frozenset((FunctionType, property, staticmethod, classmethod))
_ENUM = frozenset(("_member_map_", "_value2member_map_", "_member_names_"))  # the members say the same


def members(cls: type) -> dict[str, Any]:
    """Return the attributes of a class for its token; for an enum's member, its value."""
    found = {name: value for name, value in vars(cls).items() if name not in _SILENT}
    if isinstance(cls, EnumMeta):
        found = {name: value for name, value in found.items() if name not in _ENUM}
        entries: Any = cls.__members__
        found |= {name: member._value_ for name, member in entries.items()}
    if "__attrs_attrs__" in found and "__hash__" in found:  # made from the rest, and contains a number of this process
        found["__hash__"] = found["__hash__"] is not None
    return found


def ordered(cls: type) -> list[str]:
    """Return the names of a class's data in the order of their definition, which a metaclass may use."""
    return [name for name, value in vars(cls).items() if name not in _SILENT and type(value) not in _METHODS]


def aliases(cls: type) -> list[str]:
    """Return the names of an enum in order, each with the name of its member; [] for other classes."""
    entries: Any = cls.__members__ if isinstance(cls, EnumMeta) else {}
    return [part for name, member in entries.items() for part in (name, str(member.name))]


def registered(cls: type) -> list[str]:
    """Return the names of the classes registered as subclasses of an abstract class."""
    if not isinstance(cls, ABCMeta):
        return []
    found = [reference() for reference in abc._get_dump(cls)[0]]  # type: ignore[attr-defined]  # there is no public way
    return sorted(f"{module_of(one)}.{one.__qualname__}" for one in found if one is not None)
