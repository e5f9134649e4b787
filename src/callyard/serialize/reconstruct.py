"""What the pickles of functions and classes call when they are read: it makes them again, or finds them."""

from __future__ import annotations

import builtins
import contextlib
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from types import CellType, CodeType, FunctionType, ModuleType

from ..utils.lite_typing import Any
from . import module_namespace, object_identity
from .module_namespace import Head, Header, Needs, guest, provide
from .object_identity import DefinitionIdentity, Key


def namespace(header: Header | str) -> dict[str, Any]:
    """The dictionary of the functions that say they come from there."""
    if isinstance(header, str):
        return vars(importlib.import_module(header))
    if header[0][0] != object_identity.token:
        return guest(header).globals()
    module = sys.modules.get(header[0][1])
    if module is not None and not header[0][2]:
        return vars(module)
    space = module_namespace.find(header[0])
    return space.globals() if space else {"__builtins__": builtins, **dict(header[1])}


def named(header: Header, name: str, key: Key, needs: Needs) -> Any:
    """The function or class that was sent under this name: at home the very one."""
    provide(needs)
    if header[0][0] == object_identity.token:
        known = object_identity.find(key)
        return namespace(header)[name] if known is None else known
    with module_namespace.lock:
        return guest(header).value(name)


def shared(header: Header, name: str, needs: Needs) -> Any:
    """The object that this name means, for those that have it from elsewhere."""
    provide(needs)
    if header[0][0] == object_identity.token:
        return namespace(header)[name]
    with module_namespace.lock:
        return guest(header).value(name)


def together(heads: tuple[Head, ...], *things: Any) -> module_namespace.JointValues:
    """Values that share objects; before them is what they refer to."""
    return module_namespace.JointValues(zip(heads, things[-len(heads) :], strict=True))


def begin_to_lend(heads: tuple[Head, ...]) -> tuple[Head, ...]:
    """Before the values are made: functions and classes are stored as soon as they are."""
    with module_namespace.lock:
        for header, name in _elsewhere(heads):
            guest(header).set_aside(name)
    return heads


def lend(*things: Any) -> Any:
    """Something, after these names got the values that share objects with it; before them is what it refers to."""
    heads, thing, values = things[-3:]
    with module_namespace.lock:
        for (header, name), value in zip(heads, values, strict=True):
            if header[0][0] != object_identity.token:
                guest(header).lend(name, value)
    return thing


def _elsewhere(heads: tuple[Head, ...]) -> Iterator[Head]:
    return (head for head in heads if head[0][0][0] != object_identity.token)


def module(header: Header, needs: Needs) -> ModuleType:
    provide(needs)
    if header[0][0] != object_identity.token:
        return guest(header).module
    space = module_namespace.find(header[0])
    return space.holder() if space else sys.modules[header[0][1]]


def type_of_types(name: str) -> Any:
    """One that only the module `types` has a name for. Code is made with one, so cloudpickle is not loaded for it."""
    return getattr(types, name)


def cell() -> CellType:
    """An empty one: what it refers to may need it."""
    return CellType()


def code(filename: str, make: Callable[..., CodeType], arguments: tuple[Any, ...]) -> CodeType:
    return make(*arguments).replace(co_filename=filename)


def function(
    header: Header | str,
    needs: Needs,
    key: Key | None,
    code: CodeType,
    name: str,
    cells: tuple[CellType, ...],
) -> FunctionType:
    """A function without what it refers to: that may refer to it."""
    provide(needs)
    new = FunctionType(code, namespace(header), name, None, cells or None)
    if key is not None and not isinstance(header, str) and header[0][0] != object_identity.token:
        _remember(new, key, header, name)
    return new


def fill_function(new: FunctionType, state: tuple[Any, ...]) -> None:
    attributes, own, contents, hooked = state
    for name, value in attributes.items():
        setattr(new, name, value)
    vars(new).update(own)
    for place, value in contents:
        place.cell_contents = value
    for name, value in hooked.items():
        new.__globals__.setdefault(name, value)


def made(header: Header, name: str, key: Key, make: Callable[..., Any], *args: Any) -> Any:
    """Any other thing that is known by its name: a cached function."""
    thing = make(*args)
    if header[0][0] != object_identity.token:
        _remember(thing, key, header, name)
    return thing


def dynamic_class(header: Header | None, key: Key, make: Callable[..., type], *args: Any) -> type:
    """A class without its attributes: those may refer to it."""
    known: type | None = object_identity.find(key)
    if known is not None:
        _announce(known, header, known.__name__)
        return known
    with module_namespace.lock, _quiet(args):
        new = make(*args)
    _remember(new, key, header, new.__name__).complete = False
    return new


@contextlib.contextmanager
def _quiet(args: tuple[Any, ...]) -> Iterator[None]:
    """Do not let bases register the class once more: what they keep has been sent, as it is."""
    bases = (base for arg in args if type(arg) is tuple for base in arg if isinstance(base, type))
    loud = {c: vars(c)["__init_subclass__"] for base in bases for c in base.__mro__ if _registers(c)}
    for base in loud:
        type.__setattr__(base, "__init_subclass__", classmethod(_do_nothing))
    try:
        yield
    finally:
        for base, method in loud.items():
            type.__setattr__(base, "__init_subclass__", method)


def _registers(cls: type) -> bool:
    came = object_identity.known(cls)
    return came is not None and came.foreign and "__init_subclass__" in vars(cls)


def _do_nothing(cls: Any, /, **_: Any) -> None:
    pass


def fill_class(new: type, state: tuple[int | None, Callable[[type, Any], Any], Any]) -> None:
    """Without a version the attributes are always stored, otherwise if it is not the one received last."""
    version, fill, attributes = state
    here = object_identity.identity(new)
    if here.complete and (not here.foreign or (version is not None and here.filled == version)):
        return  # at home, or perhaps changed here since it was received
    fill(new, attributes)
    here.filled, here.complete = version, True


def _remember(thing: Any, key: Key, header: Header | None, name: str) -> DefinitionIdentity:
    _announce(thing, header, name)
    return object_identity.adopt(thing, key)


def _announce(thing: Any, header: Header | None, name: str) -> None:
    """Let those that are made from it find it before it is complete."""
    if header is not None and header[0][0] != object_identity.token:
        guest(header).values[name] = thing
