"""What is written about definitions, and does nothing by itself: docstrings, annotations, where they are defined.

It counts where code that is reached reads any, of all definitions that are reached: which one is read, through `self`,
a table or another name, no walk can tell.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import CodeType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any
from weakref import ref

from . import bytecode
from .digest import combine
from .packages import module_of, owner_of

if TYPE_CHECKING:
    from .definitions import Walk

_OF_MODULES = ("__doc__", "__annotations__", "__name__")
_OF_FUNCTIONS = ("__doc__", "__annotations__", "__module__", "__qualname__", "__type_params__")
_OF_CLASSES = (
    *_OF_FUNCTIONS,
    *("__parameters__", "__dataclass_params__", "__dataclass_fields__", "__abstractmethods__", "__static_attributes__"),
)


def tokens(walk: Walk, thing: Any) -> Iterator[bytes]:
    """Those of the metadata of a function, a class or a module."""
    for name in _names(thing):
        yield _token(walk, thing, name)
    if type(thing) is FunctionType:
        yield _inside(thing.__code__)


def _names(thing: Any) -> tuple[str, ...]:
    if isinstance(thing, ModuleType):
        return _OF_MODULES if owner_of(vars(thing)) is None else ()
    return _OF_FUNCTIONS if type(thing) is FunctionType else _OF_CLASSES


def _token(walk: Walk, thing: Any, name: str) -> bytes:
    from .definitions import name_of  # here, because that leads here

    me, numbered, value = ref(thing), walk.numbered, _value(thing, name)
    walk.watch.look(lambda: _value(me(), name))
    made = walk.step(f".{name}", value)
    if name in ("__doc__", "__annotations__"):
        walk.note_value(f"global {name_of(thing)}.{name}", value, made, numbered)
    return made


def _value(thing: Any, name: str) -> Any:
    """An attribute; None where there is none, or none can be made, as annotations that name what is not there."""
    if name == "__module__":
        return module_of(thing)
    if isinstance(thing, ModuleType) and not hasattr(ModuleType, name):
        return vars(thing).get(name)  # past a __getattr__ of the module's own
    try:
        found = getattr(thing, name, None)
    except Exception:
        return None
    return sorted(found) if name == "__static_attributes__" and type(found) is tuple else found


def _inside(code: CodeType) -> bytes:
    """The code with docstrings and annotations of what is defined in it."""
    return combine(b"+", [bytecode.meaning(code), *map(bytecode.constant, _docstrings(code))])


def _docstrings(code: CodeType) -> Iterator[Any]:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield constant.co_consts[:1]
            yield from _docstrings(constant)
