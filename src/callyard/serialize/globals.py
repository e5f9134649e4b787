"""The globals that functions which travel by value reach.

The pickle of a function holds names, not values, so functions may refer to each other. Each global travels as a pickle
of its own, with a version that stays the same as long as the value does. A change is seen from a snapshot of the value;
a value that can change unseen, such as a list, is pickled again and the pickles are compared.
"""

from __future__ import annotations

import linecache
import os
import sys
from collections.abc import Iterable, Iterator
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple

from ..utils.locks import new_lock
from .change_detection import content
from .import_statements import absolute_name
from .importable import by_reference, importable, sending_apart
from .module_namespace import UNSENT, Place, SentGlobals, space_of, space_of_module, spaces
from .names_in_code import names

MISSING: Any = object()

lock = new_lock()  # reentrant: a finalizer may submit while this thread holds it


class ReachedNames(NamedTuple):
    """The globals, submodules and source texts that a function needs."""

    places: list[Place]
    imports: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]  # file names and texts


def value_of(place: Place) -> Any:
    space, name = place
    return space.globals().get(name, MISSING)


def last_sent(place: Place) -> SentGlobals | None:
    """Return the global as it was sent last; None if it was not, or the reader has received nothing before."""
    return None if sending_apart() else place[0].sent.get(place[1])


def replace(places: tuple[Place, ...], new: SentGlobals) -> SentGlobals:
    """Note how these globals are sent from now on, and return it: as they were sent last, if nothing has changed."""
    known = last_sent(places[0])
    if known is not None and _same(known, new) and all(last_sent(place) is known for place in places):
        return known
    if not sending_apart():
        for space, name in places:
            space.sent[name] = new
    return new


def deleted(place: Place) -> SentGlobals | None:
    """Return how a global without a value is sent: as deleted; None if it never had a value."""
    known = last_sent(place)
    return known if known is None or known.data is None else replace((place,), SentGlobals(None, (place,)))


def _same(known: SentGlobals, new: SentGlobals) -> bool:
    return known.data == new.data and known.places == new.places and known.refs == new.refs


def forget_pickles() -> None:
    """Let each value be pickled again when it is next sent, because parts of it may have to travel by value now."""
    for space in spaces():
        for sent in list(space.sent.values()):
            sent.snapshot = None


def place_of(thing: Any) -> Place | None:
    """Return the global that is this function or class; None if there is none, or it does not travel by value."""
    name = getattr(thing, "__qualname__", None)
    if type(name) is not str or not name.isidentifier():
        return None
    if type(thing) is FunctionType and at_import(thing) is None:
        space = space_of(thing)
        if space.globals().get(name) is thing:
            return space, name
    module = sys.modules.get(thing.__module__)
    if type(module) is ModuleType and vars(module).get(name) is thing and not importable(thing.__module__):
        return space_of_module(module), name
    return None


# -- the globals of one function ---------------------------------------------------------------------------

_STANDARD_LOADERS = frozenset(("_frozen_importlib", "_frozen_importlib_external"))


def globals_of(code: CodeType) -> Iterator[str]:
    """Yield the globals in code that are sent."""
    return (name for name in names(code).globals if name not in UNSENT)


def reached_by(function: FunctionType) -> ReachedNames:
    """Return what this function needs, but not what that needs in turn."""
    _, everything, imported = names(function.__code__)
    wanted = tuple(globals_of(function.__code__))
    held = map(content, function.__closure__ or ())
    namespace = function.__globals__
    values = [*(namespace[name] for name in wanted if name in namespace), *held]
    modules = [value for value in values if type(value) is ModuleType]
    if at_import(function) is None:  # others run their import statements where they are read
        modules.extend(_imported(namespace, imported))
    places = [] if at_import(function) else [(space_of(function), name) for name in wanted]
    for module in modules:
        if not is_importable(module):
            places.extend(_inside(module, everything))
    imports = dict.fromkeys(name for module in modules for name in _submodules(module.__name__, everything))
    return ReachedNames(places, tuple(imports), source(function.__code__))


def _imported(namespace: dict[str, Any], imports: Iterable[tuple[str, int]]) -> Iterator[ModuleType]:
    """Yield the modules that import statements inside a function mean, if they are loaded and have to be sent."""
    for name, level in sorted(imports):
        found = absolute_name(name, level, namespace)
        packages = [] if found is None else found.split(".")
        for length in range(len(packages)):
            module = sys.modules.get(".".join(packages[: length + 1]))
            if type(module) is ModuleType and module.__name__ != "__main__" and not is_importable(module):
                yield module


def at_import(function: FunctionType) -> str | None:
    """Return the name of the module whose import gives the function's globals; None if no import does."""
    name: Any = function.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str else None
    if module is None or vars(module) is not function.__globals__ or not importable(name):
        return None
    return str(name)


def hooked_globals(function: FunctionType) -> dict[str, Any]:
    """Return globals that an import hook may have added, as pytest does for assertions; elsewhere there is no hook.

    Only values that others can import are among them; the module's own definitions are there anyway.
    """
    namespace = function.__globals__
    if type(namespace.get("__loader__")).__module__ in _STANDARD_LOADERS:
        return {}
    wanted = {name: namespace[name] for name in globals_of(function.__code__) if name in namespace}
    return {name: value for name, value in wanted.items() if _is_elsewhere(value, namespace["__name__"])}


def _is_elsewhere(value: Any, module: str) -> bool:
    if type(value) is ModuleType:
        return is_importable(value)
    return getattr(value, "__module__", module) != module and by_reference(value)


def is_importable(module: ModuleType) -> bool:
    name = module.__name__
    return sys.modules.get(name) is module and importable(name)


def _inside(module: ModuleType, attributes: frozenset[str]) -> Iterator[Place]:
    """Yield the globals of a module that travels by value which code can mean by `module.attribute`."""
    space = space_of_module(module)
    for name in sorted(attributes - UNSENT):  # those without a value too, because they may get one
        yield space, name
        value = vars(module).get(name)
        if type(value) is ModuleType and value is not module and not is_importable(value):
            yield from _inside(value, attributes - {name})


def _submodules(package: str, attributes: frozenset[str]) -> Iterator[str]:
    """Yield the submodules of an imported package that code can mean by `package.attribute`."""
    for attribute in sorted(attributes):
        name = f"{package}.{attribute}"
        if name in sys.modules and importable(name):
            yield name
            yield from _submodules(name, attributes)


def source(code: CodeType) -> tuple[tuple[str, str], ...]:
    """Return file name and text of code that is in no file, such as a notebook cell or a doctest, for tracebacks."""
    filename = code.co_filename
    entry = linecache.cache.get(filename)
    if entry is None and not filename.startswith("<"):
        return ()
    if entry is not None and (len(entry) == 1 or entry[1] is not None or os.path.exists(filename)):
        return ()
    text = "".join(linecache.getlines(filename))
    return ((filename, text),) if text else ()


os.register_at_fork(after_in_child=lock._at_fork_reinit)  # another thread may have held it
