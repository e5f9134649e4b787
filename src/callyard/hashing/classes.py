"""Tokens of classes: of their bases, attributes, methods and annotations."""

from __future__ import annotations

import sys
from types import FunctionType
from typing import Any

from .class_attributes import aliases, members, ordered, registered
from .code import code_token
from .definition_walk import Walk, name_of
from .digest import combine, text
from .packages import Package, compiled, module_of, owner


def describe(walk: Walk, cls: type, package: Package | None) -> bytes:
    """Return the token of a class by its content, not by its name in a package."""
    walk.watch.class_(cls)
    found = sorted(members(cls).items())
    module = module_of(cls)  # counts, because isinstance() tells equal classes of two modules apart
    name = text(b"n", cls.__name__, cls.__qualname__, "" if module == "__main__" else module)
    annotations = combine(b"a", [part for name, of in _annotations(cls) for part in _annotation(walk, name, of)])
    checks = walk.token(_pydantic_decorators(cls))
    order = text(b"n", *ordered(cls), *aliases(cls), *registered(cls))
    inside = combine(b"a", [part for name, value in found for part in _member(walk, cls, name, value)])
    bases = combine(b"a", map(walk.definition, (type(cls), *cls.__bases__)))
    own = [code_token(value.__code__) for _, value in found if type(value) is FunctionType]
    walk.note(f"class {name_of(cls)}", combine(b"K", [name, annotations, *own]))
    origin = compiled(sys.modules.get(module)) if package is None else walk.package(package, module)
    return combine(b"K", [name, annotations, checks, order, bases, inside, origin])


def _pydantic_decorators(cls: type) -> dict[str, Any]:
    """Return the methods for pydantic to call, and the times, without the class's address in pydantic's records."""
    found = vars(cls).get("__pydantic_decorators__")
    kinds = {kind: getattr(found, kind) for kind in getattr(type(found), "__dataclass_fields__", ())}
    return {
        f"{kind} {name}": (getattr(one, "cls_var_name", ""), getattr(one, "info", None))
        for kind, named in kinds.items()
        if isinstance(named, dict)
        for name, one in named.items()
    }


def _member(walk: Walk, cls: type, name: str, value: Any) -> list[bytes]:
    numbered = walk.numbered
    made = walk.step(f".{name}", value)
    if walk.numbered == numbered and not (name.startswith("__") and name.endswith("__")):
        walk.note(f"global {name_of(cls)}.{name}", made)
    return [name.encode("utf-8", "surrogatepass"), made]


def _annotations(cls: type) -> list[tuple[str, Any]]:
    """Return the annotations of a class, because `dataclass` and its like read annotations."""
    own = vars(cls).get("__annotations__")
    try:  # from 3.14 on evaluated now, perhaps with a missing name
        own = cls.__annotations__ if "__annotate_func__" in vars(cls) else own
    except Exception:
        return []
    return list(own.items()) if isinstance(own, dict) else []  # a type of Cython's has something else there


def _annotation(walk: Walk, name: str, of: Any) -> list[bytes]:
    if isinstance(of, str):
        return [text(b"n", name, of), b""]
    if not issubclass(type(of), type):
        return [text(b"n", name), walk.step(f".__annotations__[{name!r}]", of)]
    return [text(b"n", name, of.__qualname__), walk.definition(of) if owner(module_of(of)) is None else b""]
