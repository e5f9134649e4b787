"""What code reaches by name: globals, attributes of modules, and what it imports inside functions."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from ..serialize.importable import importable
from . import bytecode
from .bytecode import Chain, Import
from .digest import combine, text
from .invalidation import MISSING
from .packages import absolute, compiled, load, owner, owner_by_name, owner_of

if TYPE_CHECKING:
    from .definitions import Walk

# Names in a module that say where it is, not what it does.
_PLACES = frozenset(
    (
        *("__builtins__", "__name__", "__file__", "__doc__", "__class__", "__package__", "__path__"),
        *("__spec__", "__loader__", "__cached__", "__debug__"),
    )
)
_TELLING = frozenset(("__doc__", "__name__", "__package__"))  # those that are the same wherever it is
_NOTES = frozenset(("__annotations__", "__annotate__", "__conditional_annotations__", "__warningregistry__"))


def reads(walk: Walk, function: FunctionType) -> Iterable[bytes]:
    """All that the code of a function reads by name, and what it imports."""
    found = bytecode.reads(function.__code__)
    home = str(function.__globals__.get("__name__"))
    walk.note_special(found.special)
    for name in sorted(found.names.keys() - (_PLACES - _TELLING)):
        yield text(b"n", name)
        yield _global(walk, function, home, name, found.names[name])
    for wanted in found.imports:
        yield text(b"i", wanted.module, wanted.name or "")
        chains: set[Chain] = {()} if wanted.variable is None else found.variables.get(wanted.variable, set())
        yield _import(walk, function.__globals__, wanted, chains)


def _global(walk: Walk, holder: Any, home: str, name: str, chains: set[Chain]) -> bytes:
    """A name in the module `home`, whose namespace `holder` has: a function of it, or the module."""
    namespace = holder.__globals__ if type(holder) is FunctionType else vars(holder)
    value = namespace.get(name, MISSING)
    walk.watch.name(holder, name, value)
    if value is MISSING:
        return _builtin(walk, name)
    if isinstance(value, ModuleType):
        return module_reads(walk, value, chains)
    where, travels, numbered = walk.where, walk.travels, walk.numbered
    walk.where = f"{home}.{name}"
    is_definition = type(value) is FunctionType or isinstance(value, type)
    if travels and not is_definition and owner(home) is None and _is_imported(home, namespace):
        walk.references[home, name] = None
        walk.travels = False
    try:
        made = walk.token(value)
    finally:
        walk.where, walk.travels = where, travels
    if not is_definition:
        walk.note_value(f"global {home}.{name}", value, made, numbered)
    return made


def _is_imported(home: str, namespace: dict[str, Any]) -> bool:
    """Whether a worker finds this namespace by importing a module."""
    return importable(home) and vars(sys.modules[home]) is namespace


def _builtin(walk: Walk, name: str) -> bytes:
    """A name that the module does not have: Python's, or what somebody has put there."""
    walk.note_use(name)
    value = vars(builtins).get(name, MISSING)
    walk.watch.name(builtins, name, value)
    if value is MISSING:
        return b"missing"
    if type(value) in (BuiltinFunctionType, type) and value.__module__ == "builtins":
        return text(b"b", value.__qualname__)
    return walk.token(value)


# -- modules -----------------------------------------------------------------------------------------------


def module_reads(walk: Walk, module: ModuleType, chains: Iterable[Chain]) -> bytes:
    """A module, as far as it is read: these attributes of it, or all if () is among them."""
    home = owner_of(vars(module))
    if home is not None:
        for chain in chains:
            walk.note_use(".".join((module.__name__, *chain)), whole=not chain)
        return walk.package(home, module.__name__)
    walk.watch.kind(module)
    firsts: dict[str, set[Chain]] = {}
    for chain in chains:
        if not chain or _is_of_its_class(module, chain[0]):
            return walk.definition(module)
        firsts.setdefault(chain[0], set()).add(chain[1:])
    names = sorted(firsts.keys() - (_PLACES - _TELLING))
    return combine(b"o", [compiled(module), *(_attribute(walk, module, name, firsts[name]) for name in names)])


def _is_of_its_class(module: ModuleType, name: str) -> bool:
    """Whether an attribute is not among the names in a module: `__dict__` leads to all of them."""
    if type(module) is not ModuleType:  # that may make anything of any name
        return True
    return name not in vars(module) and name not in _PLACES and hasattr(ModuleType, name)


def whole(walk: Walk, module: ModuleType) -> bytes:
    """A module that is passed on as a value: all that is in it."""
    home = owner_of(vars(module))
    if home is not None:
        walk.note_use(module.__name__, whole=True)
        return walk.package(home, module.__name__)
    walk.watch.kind(module)
    walk.watch.whole(module)
    names = sorted(vars(module).keys() - _PLACES - _NOTES)
    kind = b"" if type(module) is ModuleType else walk.definition(type(module))
    parts = (_attribute(walk, module, name, _all_of(module, name)) for name in names)
    return combine(b"o", [compiled(module), kind, *parts])


def _all_of(module: ModuleType, name: str) -> set[Chain]:
    """That a name is used as a whole; not those of libraries that a module has imported for itself."""
    value = vars(module)[name]
    return set() if isinstance(value, ModuleType) and owner_of(vars(value)) is not None else {()}


def _attribute(walk: Walk, module: ModuleType, name: str, rest: set[Chain]) -> bytes:
    label = text(b"n", name)
    if name in vars(module):
        return combine(b":", [label, _global(walk, module, module.__name__, name, rest)])
    walk.watch.name(module, name, MISSING)
    if "__getattr__" not in vars(module):
        walk.watch.name(module, "__getattr__", MISSING)
        return combine(b":", [label])
    return combine(b":", [label, _global(walk, module, module.__name__, "__getattr__", {()})])


# -- import statements in functions ------------------------------------------------------------------------


def _import(walk: Walk, namespace: dict[str, Any], wanted: Import, chains: set[Chain]) -> bytes:
    """What an import statement inside a function gives, as far as the function uses it."""
    name = absolute(wanted.module, wanted.level, namespace)
    if name is None:
        return b"missing"
    home = owner_by_name(name)
    if home is not None:
        first = name.partition(".")[0]
        place = first if wanted.name is None and wanted.variable == first else name  # `import a.b` gives a
        for chain in chains:
            walk.note_use(".".join((place, *filter(None, (wanted.name,)), *chain)), whole=not chain)
        return walk.package(home, home.name)
    module = _loaded(walk, name)
    if not isinstance(module, ModuleType):
        return module or b"missing"  # by its file, as it cannot be imported here
    if wanted.name is None:
        top = _loaded(walk, name.partition(".")[0])
        is_top = isinstance(top, ModuleType) and wanted.variable == top.__name__
        return module_reads(walk, top if is_top else module, chains)  # type: ignore[arg-type]
    if not hasattr(module, wanted.name):
        _loaded(walk, f"{name}.{wanted.name}")
    value = vars(module).get(wanted.name, MISSING)
    if isinstance(value, ModuleType):
        walk.watch.name(module, wanted.name, value)
        return module_reads(walk, value, chains)
    return module_reads(walk, module, {(wanted.name,)})


def _loaded(walk: Walk, name: str) -> ModuleType | bytes | None:
    found = load(name)
    walk.watch.module(name)
    return found
