"""Tokens of the metadata of definitions, which have no effect by themselves: docstrings, annotations, file and line.

If any code in a walk reads metadata, the metadata of all definitions in the walk count, because the code may read
them through `self`, a table or another name, which no walk can follow.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any
from weakref import ref

from ..serialize.names_in_code import all_codes
from . import bytecode
from .definition_walk import Walk, name_of
from .digest import combine
from .packages import module_of, owner_of

_OF_MODULES = ("__doc__", "__annotations__", "__name__")
_OF_FUNCTIONS = ("__doc__", "__annotations__", "__module__", "__qualname__", "__type_params__")
_OF_CLASSES = (
    *_OF_FUNCTIONS,
    *("__parameters__", "__dataclass_params__", "__dataclass_fields__", "__abstractmethods__", "__static_attributes__"),
)


def tokens(walk: Walk, thing: Any) -> Iterator[bytes]:
    """Yield the tokens of the metadata of a function, a class or a module."""
    for name in _names(thing):
        yield _token(walk, thing, name)
    if type(thing) is FunctionType:
        yield _inside(thing.__code__)


def _names(thing: Any) -> tuple[str, ...]:
    if isinstance(thing, ModuleType):
        return _OF_MODULES if owner_of(vars(thing)) is None else ()
    return _OF_FUNCTIONS if type(thing) is FunctionType else _OF_CLASSES


def _token(walk: Walk, thing: Any, name: str) -> bytes:
    me, numbered, value = ref(thing), walk.numbered, _value(thing, name)
    walk.watch.value(lambda: _value(me(), name))
    made = walk.step(f".{name}", value)
    if name in ("__doc__", "__annotations__"):
        walk.note_value(f"global {name_of(thing)}.{name}", value, made, numbered)
    return made


def _value(thing: Any, name: str) -> Any:
    """Return an attribute; None if absent, or if its evaluation fails, as of an annotation."""
    if name == "__module__":
        return module_of(thing)
    if isinstance(thing, ModuleType) and not hasattr(ModuleType, name):
        return vars(thing).get(name)  # not by getattr, because the module may have a __getattr__
    try:
        found = getattr(thing, name, None)
    except Exception:
        return None
    return sorted(found) if name == "__static_attributes__" and type(found) is tuple else found


def _inside(code: CodeType) -> bytes:
    """Return the token of code with the docstrings of the functions inside."""
    return combine(b"+", [bytecode.bytecode_token(code), *map(bytecode.constant, _docstrings(code))])


def _docstrings(code: CodeType) -> Iterator[tuple[Any, ...]]:
    """Yield the first constant of each function inside, in a tuple: the docstring, if there is one."""
    return (each.co_consts[:1] for each in all_codes(code) if each is not code)
