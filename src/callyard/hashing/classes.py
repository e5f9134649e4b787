"""The meaning of classes: what they are made from, their attributes and methods."""

from __future__ import annotations

import abc
import sys
from abc import ABCMeta
from enum import EnumMeta
from types import FunctionType
from typing import TYPE_CHECKING, Any

from .digest import combine, text
from .packages import Package, compiled, module_of, owner

if TYPE_CHECKING:
    from .definitions import Walk

# Attributes of a class that say nothing, or that its others say.
_SILENT = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__"),
        *("__static_attributes__", "__abstractmethods__", "_abc_impl", "__slotnames__", "__annotations__"),
        *("__annotate__", "__annotate_func__", "__annotations_cache__", "__classdictcell__", "__classcell__"),
        *("__parameters__", "__type_params__", "__dataclass_params__"),
        # What pydantic makes of the rest, with addresses in it, or when it is used.
        *("__pydantic_core_schema__", "__pydantic_validator__", "__pydantic_serializer__"),
        *("__pydantic_decorators__", "__pydantic_parent_namespace__", "__signature__"),
        "__pydantic_setattr_handlers__",
    )
)


_METHODS = frozenset((FunctionType, property, staticmethod, classmethod))
_ENUM = frozenset(("_member_map_", "_value2member_map_", "_member_names_"))  # the members say it


def members(cls: type) -> dict[str, Any]:
    """The attributes of a class that count; of an enum's member, its value."""
    found = {name: value for name, value in vars(cls).items() if name not in _SILENT}
    if isinstance(cls, EnumMeta):
        found = {name: value for name, value in found.items() if name not in _ENUM}
        entries: Any = cls.__members__
        found |= {name: member._value_ for name, member in entries.items()}
    if "__attrs_attrs__" in found and "__hash__" in found:  # made from the rest, with a number of this process in it
        found["__hash__"] = found["__hash__"] is not None
    return found


def describe(walk: Walk, cls: type, home: Package | None) -> bytes:
    """The token of a class that is not known by its name in a package."""
    from .definitions import code_token, name_of

    walk.watch.class_(cls)
    found = sorted(members(cls).items())
    module = module_of(cls)  # of two that say the same, isinstance() takes one
    name = text(b"n", cls.__name__, cls.__qualname__, "" if module == "__main__" else module)
    annotations = combine(b"a", [part for name, of in _annotations(cls) for part in _annotation(walk, name, of)])
    checks = walk.token(_pydantic_decorators(cls))
    order = text(b"n", *_ordered(cls), *_aliases(cls), *registered(cls))
    inside = combine(b"a", [part for name, value in found for part in _member(walk, cls, name, value)])
    above = combine(b"a", map(walk.definition, (type(cls), *cls.__bases__)))
    own = [code_token(value.__code__) for _, value in found if type(value) is FunctionType]
    walk.note(f"class {name_of(cls)}", combine(b"K", [name, annotations, *own]))
    origin = compiled(sys.modules.get(module)) if home is None else walk.package(home, module)
    return combine(b"K", [name, annotations, checks, order, above, inside, origin])


def _pydantic_decorators(cls: type) -> dict[str, Any]:
    """Which methods of a model pydantic calls, and when: without the address by which it knows the class."""
    found = vars(cls).get("__pydantic_decorators__")
    kinds = {kind: getattr(found, kind) for kind in getattr(type(found), "__dataclass_fields__", ())}
    return {
        f"{kind} {name}": (getattr(one, "cls_var_name", ""), getattr(one, "info", None))
        for kind, named in kinds.items()
        if isinstance(named, dict)
        for name, one in named.items()
    }


def _member(walk: Walk, cls: type, name: str, value: Any) -> list[bytes]:
    from .definitions import name_of

    numbered = walk.numbered
    made = walk.step(f".{name}", value)
    if walk.numbered == numbered and not (name.startswith("__") and name.endswith("__")):
        walk.note(f"global {name_of(cls)}.{name}", made)
    return [name.encode("utf-8", "surrogatepass"), made]


def _annotations(cls: type) -> list[tuple[str, Any]]:
    """Those of a class count: dataclasses and their like are made from them."""
    own = vars(cls).get("__annotations__")
    try:  # from 3.14 on they are made when somebody asks, and may refer to what is not there
        own = cls.__annotations__ if "__annotate_func__" in vars(cls) else own
    except Exception:
        return []
    return list(own.items()) if isinstance(own, dict) else []  # that of a type of Cython's is none


def _annotation(walk: Walk, name: str, of: Any) -> list[bytes]:
    if isinstance(of, str):
        return [text(b"n", name, of), b""]
    if not issubclass(type(of), type):
        return [text(b"n", name), walk.step(f".__annotations__[{name!r}]", of)]
    return [text(b"n", name, of.__qualname__), walk.definition(of) if owner(module_of(of)) is None else b""]


def _ordered(cls: type) -> list[str]:
    """The names of its data as they were defined: a metaclass may count them. The order of methods says nothing."""
    return [name for name, value in vars(cls).items() if name not in _SILENT and type(value) not in _METHODS]


def _aliases(cls: type) -> list[str]:
    """Of an enum: its names in order, each with that of its member."""
    entries: Any = cls.__members__ if isinstance(cls, EnumMeta) else {}
    return [part for name, member in entries.items() for part in (name, str(member.name))]


def registered(cls: type) -> list[str]:
    """The classes that an abstract one takes for its own because they were registered."""
    if not isinstance(cls, ABCMeta):
        return []
    found = [reference() for reference in abc._get_dump(cls)[0]]  # type: ignore[attr-defined]  # nothing else tells
    return sorted(f"{module_of(one)}.{one.__qualname__}" for one in found if one is not None)
