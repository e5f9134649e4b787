"""The functions called by pickles of functions and classes during reading, to make these anew or to find them.

The names here are part of pickles in cache files, so renaming a function makes old entries unreadable.
"""

from __future__ import annotations

import builtins
import sys
import types
from types import CellType, CodeType, FunctionType, ModuleType

from ..utils.lite_stdlib import Any, Callable, Iterator
from . import definition_identity, module_namespace
from .definition_identity import DefinitionIdentity, Key
from .module_namespace import GlobalName, Header, Needs
from .namespace_replica import JointValues, provide, replica


def namespace(header: Header | str) -> dict[str, Any]:
    """Return the globals of functions with this header."""
    if isinstance(header, str):
        import importlib  # here, because most functions that travel by value belong to no importable module

        return vars(importlib.import_module(header))
    if header[0][0] != definition_identity.process_name:
        return replica(header).globals()
    module = sys.modules.get(header[0][1])
    if module is not None and not header[0][2]:
        return vars(module)
    space = module_namespace.find(header[0])
    return space.globals() if space else {"__builtins__": builtins, **dict(header[1])}


def named(header: Header, name: str, key: Key, needs: Needs) -> Any:
    """Return the function or class sent under this name; in the defining process, the original."""
    provide(needs)
    if header[0][0] == definition_identity.process_name:
        known = definition_identity.find(key)
        return namespace(header)[name] if known is None else known
    with module_namespace.lock:
        return replica(header).value(name)


def shared(header: Header, name: str, needs: Needs) -> Any:
    """Return the value of a global, for other values that contain the same object."""
    provide(needs)
    if header[0][0] == definition_identity.process_name:
        return namespace(header)[name]
    with module_namespace.lock:
        return replica(header).value(name)


def together(names: tuple[GlobalName, ...], *things: Any) -> JointValues:
    """Return the values of globals that share objects. `things` begins with objects for the pickle's memo."""
    return JointValues(zip(names, things[-len(names) :], strict=True))


def begin_to_lend(names: tuple[GlobalName, ...]) -> tuple[GlobalName, ...]:
    """Save the values of these globals, before the pickle makes functions, and thereby stores them."""
    with module_namespace.lock:
        for header, name in _foreign(names):
            replica(header).set_aside(name)
    return names


def lend(*things: Any) -> Any:
    """Return an object, after lending globals the values that share objects with it.

    `things` ends with the globals, the object and the values, and begins with objects for the pickle's memo.
    """
    names, thing, values = things[-3:]
    with module_namespace.lock:
        for (header, name), value in zip(names, values, strict=True):
            if header[0][0] != definition_identity.process_name:
                replica(header).lend(name, value)
    return thing


def _foreign(names: tuple[GlobalName, ...]) -> Iterator[GlobalName]:
    return (name for name in names if name[0][0][0] != definition_identity.process_name)


def module(header: Header, needs: Needs) -> ModuleType:
    provide(needs)
    if header[0][0] != definition_identity.process_name:
        return replica(header).module
    space = module_namespace.find(header[0])
    return space.holder() if space else sys.modules[header[0][1]]


def type_of_types(name: str) -> Any:
    """Return a type by its name in the module `types`, without loading cloudpickle."""
    return getattr(types, name)


def cell() -> CellType:
    """Return an empty cell, to be filled later, because the content may refer to the cell."""
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
    """Return a function without defaults and attributes, to be set later, because each may refer to the function."""
    provide(needs)
    new = FunctionType(code, namespace(header), name, None, cells or None)
    if key is not None and not isinstance(header, str) and header[0][0] != definition_identity.process_name:
        _register(new, key, header, name)
    return new


def fill_function(new: FunctionType, state: tuple[Any, ...]) -> None:
    attributes, own, contents, hooked = state
    for name, value in attributes.items():
        setattr(new, name, value)
    vars(new).update(own)
    for cell, value in contents:
        cell.cell_contents = value
    for name, value in hooked.items():
        new.__globals__.setdefault(name, value)


def made(header: Header, name: str, key: Key, make: Callable[..., Any], *args: Any) -> Any:
    """Return any other object sent under a name, such as a function with `lru_cache`."""
    thing = make(*args)
    if header[0][0] != definition_identity.process_name:
        _register(thing, key, header, name)
    return thing


def dynamic_class(header: Header | None, key: Key, make: Callable[..., type], *args: Any) -> type:
    """Return a class without attributes, to be set later, because each may refer to the class."""
    known: type | None = definition_identity.find(key)
    if known is not None:
        _publish(known, header, known.__name__)
        return known
    with module_namespace.lock, _without_init_subclass(args):
        new = make(*args)
    _register(new, key, header, new.__name__).complete = False
    return new


class _without_init_subclass:  # noqa: N801  # a context manager
    """Switch off the hooks of bases, which would register the class a second time in registries sent complete."""

    def __init__(self, args: tuple[Any, ...]) -> None:
        bases = (base for arg in args if type(arg) is tuple for base in arg if isinstance(base, type))
        self._hooks = {c: vars(c)["__init_subclass__"] for base in bases for c in base.__mro__ if _registers(c)}

    def __enter__(self) -> None:
        for base in self._hooks:
            type.__setattr__(base, "__init_subclass__", classmethod(_do_nothing))

    def __exit__(self, *how: object) -> None:
        for base, method in self._hooks.items():
            type.__setattr__(base, "__init_subclass__", method)


def _registers(cls: type) -> bool:
    identity = definition_identity.known(cls)
    return identity is not None and identity.foreign and "__init_subclass__" in vars(cls)


def _do_nothing(cls: Any, /, **_: Any) -> None:
    pass


def fill_class(new: type, state: tuple[int | None, Callable[[type, Any], Any], Any]) -> None:
    """Store the attributes of a class, unless this version was received last."""
    version, fill, attributes = state
    here = definition_identity.identity(new)
    if here.complete and (not here.foreign or (version is not None and here.filled == version)):
        return  # the class is defined here, or unchanged at the sender, and code here may have changed its attributes
    fill(new, attributes)
    here.filled, here.complete = version, True


def _register(thing: Any, key: Key, header: Header | None, name: str) -> DefinitionIdentity:
    _publish(thing, header, name)
    return definition_identity.adopt(thing, key)


def _publish(thing: Any, header: Header | None, name: str) -> None:
    """Store an incomplete class in the namespace, for the classes derived from it."""
    if header is not None and header[0][0] != definition_identity.process_name:
        replica(header).values[name] = thing
