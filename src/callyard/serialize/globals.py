"""What functions that travel by value reach by name: their globals, as units with versions.

A function's pickle holds names, not values, so functions that refer to each other are no problem. A name has
the same unit as long as it has the same value: that is seen from a snapshot, or the value has none, as a
list, and is pickled again and compared as bytes.
"""

from __future__ import annotations

import dis
import itertools
import linecache
import os
import sys
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, NamedTuple

from ..utils.locks import new_lock
from .change_detection import ChangeDetector, content
from .import_statements import absolute_name
from .importable import by_reference, importable, sending_apart
from .module_namespace import UNSENT, space_of, space_of_module, spaces
from .shared_objects import Place

MISSING: Any = object()
_NONE: Mapping[Place, int] = MappingProxyType({})

_versions = itertools.count(1)
lock = new_lock()  # a finalizer may submit while this thread holds it


class ReachedNames(NamedTuple):
    """What a function needs beside itself."""

    places: list[Place]
    imports: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]  # file names and texts


class GlobalUnit:
    """The value of a name as it was sent, or the values of several that share objects."""

    __slots__ = ("data", "ids", "links", "places", "reaches", "refs", "snapshot", "version")

    def __init__(self, data: bytes | None, places: tuple[Place, ...], refs: Mapping[Place, int] = _NONE) -> None:
        self.version = next(_versions)
        self.data, self.places = data, places
        self.refs = refs  # names that mean objects in it, with their versions
        self.snapshot: ChangeDetector | None = None
        self.reaches: tuple[Place, ...] = ()
        self.links: AbstractSet[Place] = frozenset()  # what must be there before it can be read
        self.ids: AbstractSet[int] = frozenset()  # of what others can share with it, as long as the snapshot holds


def value_of(place: Place) -> Any:
    space, name = place
    return space.globals().get(name, MISSING)


def known_unit(place: Place) -> GlobalUnit | None:
    """As it was sent last. Somebody who has nothing yet is sent all, whatever others were sent."""
    return None if sending_apart() else place[0].units.get(place[1])


def replace(places: tuple[Place, ...], new: GlobalUnit) -> GlobalUnit:
    """The unit of these names from now on: the known one, if it is the same."""
    known = known_unit(places[0])
    if known is not None and _same(known, new) and all(known_unit(place) is known for place in places):
        return known
    if not sending_apart():
        for space, name in places:
            space.units[name] = new
    return new


def deleted(place: Place) -> GlobalUnit | None:
    """The unit of a name that has no value. None: it never had one."""
    known = known_unit(place)
    return known if known is None or known.data is None else replace((place,), GlobalUnit(None, (place,)))


def _same(known: GlobalUnit, new: GlobalUnit) -> bool:
    return known.data == new.data and known.places == new.places and known.refs == new.refs


def forget_pickles() -> None:
    """Pickle each value again when it is next sent: what was sent by name may have to travel by value now."""
    for space in spaces():
        for unit in list(space.units.values()):
            unit.snapshot = None


def place_of(thing: Any) -> Place | None:
    """The name under which a function or class that travels by value is found in its namespace."""
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


# -- what a function reaches -------------------------------------------------------------------------------

_STANDARD_LOADERS = frozenset(("_frozen_importlib", "_frozen_importlib_external"))
_GLOBAL = frozenset(("LOAD_GLOBAL", "LOAD_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_FROM_DICT_OR_GLOBALS"))
# Globals that code may use, all names in it, and the modules of its import statements with their levels.
Names = tuple["tuple[str, ...]", "frozenset[str]", "frozenset[tuple[str, int]]"]
_names: weakref.WeakKeyDictionary[CodeType, Names] = weakref.WeakKeyDictionary()


def names(code: CodeType) -> Names:
    """What the code names, and the code inside it."""
    found = _names.get(code)
    if found is None:
        wanted, everything, imports = dict[str, None](), set(code.co_names), set[tuple[str, int]]()
        levels: deque[Any] = deque([0, 0], maxlen=2)  # what the last two instructions had: level and names
        for instruction in dis.get_instructions(code):
            if instruction.opname in _GLOBAL and instruction.argval not in UNSENT:
                wanted[instruction.argval] = None
            elif instruction.opname == "IMPORT_NAME":
                imports.add((instruction.argval, levels[0] if type(levels[0]) is int else 0))
            if instruction.opname not in ("EXTENDED_ARG", "CACHE", "NOP"):
                levels.append(instruction.argval)
        for constant in code.co_consts:
            if isinstance(constant, CodeType):
                inner, all_inner, inner_imports = names(constant)
                wanted.update(dict.fromkeys(inner))
                everything |= all_inner
                imports |= inner_imports
        found = _names[code] = (tuple(wanted), frozenset(everything), frozenset(imports))
    return found


def reach(function: FunctionType) -> ReachedNames:
    """What this function needs, but not what that needs in turn."""
    wanted, everything, imported = names(function.__code__)
    held = map(content, function.__closure__ or ())
    home = function.__globals__
    values = [*(home[name] for name in wanted if name in home), *held]
    modules = [value for value in values if type(value) is ModuleType]
    if at_import(function) is None:  # others import where they are
        modules.extend(_imported(home, imported))
    places = [] if at_import(function) else [(space_of(function), name) for name in wanted]
    for module in modules:
        if not is_importable(module):
            places.extend(_inside(module, everything))
    imports = dict.fromkeys(name for module in modules for name in _submodules(module.__name__, everything))
    return ReachedNames(places, tuple(imports), source(function.__code__))


def _imported(namespace: dict[str, Any], imports: Iterable[tuple[str, int]]) -> Iterator[ModuleType]:
    """The modules that import statements inside a function mean, if they are loaded and have to be sent."""
    for name, level in sorted(imports):
        found = absolute_name(name, level, namespace)
        packages = [] if found is None else found.split(".")
        for length in range(len(packages)):
            module = sys.modules.get(".".join(packages[: length + 1]))
            if type(module) is ModuleType and module.__name__ != "__main__" and not is_importable(module):
                yield module


def at_import(function: FunctionType) -> str | None:
    """The module whose import gives the function's globals, for a function made inside one."""
    name: Any = function.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str else None
    if module is None or vars(module) is not function.__globals__ or not importable(name):
        return None
    return str(name)


def hooked_globals(function: FunctionType) -> dict[str, Any]:
    """Return globals that an import hook may have added, as pytest does for assertions: elsewhere there is no hook.

    Only what others can import is among them; what the module itself defines is there anyway.
    """
    namespace = function.__globals__
    if type(namespace.get("__loader__")).__module__ in _STANDARD_LOADERS:
        return {}
    wanted = {name: namespace[name] for name in names(function.__code__)[0] if name in namespace}
    return {name: value for name, value in wanted.items() if _is_elsewhere(value, namespace["__name__"])}


def _is_elsewhere(value: Any, module: str) -> bool:
    if type(value) is ModuleType:
        return is_importable(value)
    return getattr(value, "__module__", module) != module and by_reference(value)


def is_importable(module: ModuleType) -> bool:
    name = module.__name__
    return sys.modules.get(name) is module and importable(name)


def _inside(module: ModuleType, attributes: frozenset[str]) -> Iterator[Place]:
    """Of a module that does not travel by reference, what the code can mean by `module.attribute`."""
    space = space_of_module(module)
    for name in sorted(attributes - UNSENT):  # those that are not there too: they may come
        yield space, name
        value = vars(module).get(name)
        if type(value) is ModuleType and value is not module and not is_importable(value):
            yield from _inside(value, attributes - {name})


def _submodules(package: str, attributes: frozenset[str]) -> Iterator[str]:
    """Of an imported package, the modules that the code can mean by `package.attribute`."""
    for attribute in sorted(attributes):
        name = f"{package}.{attribute}"
        if name in sys.modules and importable(name):
            yield name
            yield from _submodules(name, attributes)


def source(code: CodeType) -> tuple[tuple[str, str], ...]:
    """The text of code that no file has (a notebook cell, a doctest), for tracebacks."""
    filename = code.co_filename
    entry = linecache.cache.get(filename)
    if entry is None and not filename.startswith("<"):
        return ()
    if entry is not None and (len(entry) == 1 or entry[1] is not None or os.path.exists(filename)):
        return ()
    text = "".join(linecache.getlines(filename))
    return ((filename, text),) if text else ()


os.register_at_fork(after_in_child=lock._at_fork_reinit)  # another thread may have held it
