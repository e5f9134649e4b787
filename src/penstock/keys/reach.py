"""What code reaches by name: globals, attributes of modules, and what it imports inside functions."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import TYPE_CHECKING, Any

from ..wire.references import importable
from . import bytecode
from .bytecode import Chain, Import
from .modules import absolute, compiled, load
from .owners import owner, owner_by_name, owner_of
from .tokens import combine, text
from .watch import MISSING

if TYPE_CHECKING:
    from .definitions import Walk

# Names in a module that say where it is, not what it does.
_PLACES = frozenset(
    (
        *("__builtins__", "__name__", "__file__", "__doc__", "__class__", "__package__", "__path__"),
        *("__spec__", "__loader__", "__cached__", "__debug__"),
    )
)
_SAID = frozenset(("__doc__", "__annotations__"))
_NOTES = frozenset(("__annotations__", "__annotate__", "__conditional_annotations__", "__warningregistry__"))
# What a function may look at that no key can follow.
_UNFOLLOWED = frozenset(
    (
        *("eval", "exec", "compile", "getattr", "locals", "vars", "open", "input", "__import__"),
        *("importlib.import_module", "os.environ", "os.getenv", "os.listdir", "os.getcwd", "os.urandom"),
        *(
            "globals",
            "sys.modules",
            "inspect.signature",
            "inspect.getdoc",
            "inspect.getsource",
            "typing.get_type_hints",
        ),
        *("__subclasses__", "io.open", "datetime.datetime", "datetime.date"),
        *("numpy.random", "numpy.load", "numpy.loadtxt"),
    )
)
_UNFOLLOWED_INSIDE = ("time.", "random.", "secrets.", "uuid.", "subprocess.", "os.environ.", "numpy.random.", "socket.")


def is_unfollowed(name: str) -> bool:
    return name.removeprefix("builtins.") in _UNFOLLOWED or name.startswith(_UNFOLLOWED_INSIDE)


def reads(walk: Walk, function: FunctionType) -> Iterable[bytes]:
    """All that the code of a function reads by name, and what it imports."""
    found = bytecode.reads(function.__code__)
    home = str(function.__globals__.get("__name__"))
    if any("__subclasses__" in chain for read in (found.names, found.variables) for c in read.values() for chain in c):
        walk.note_unfollowed("__subclasses__")
    for name in sorted(found.names.keys() - (_PLACES - {"__doc__", "__name__"})):
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
    if is_definition:
        said = [*_said(walk, value, f"{home}.{name}", chains)]
        return combine(b":", [made, *said]) if said else made
    walk.note_value(f"global {home}.{name}", value, made, numbered)
    return made


def _said(walk: Walk, thing: Any, where: str, chains: set[Chain]) -> Iterable[bytes]:
    """What is written about a definition, and counts where somebody reads it: its docstring, its annotations."""
    for name in sorted({name for chain in chains for name in chain[:1]} & _SAID):
        walk.watch.attribute(thing, name)
        made = walk.token(getattr(thing, name, None))
        walk.note(f"global {where}.{name}", made)
        yield made


def _is_imported(home: str, namespace: dict[str, Any]) -> bool:
    """Whether a worker finds this namespace by importing a module."""
    return importable(home) and vars(sys.modules[home]) is namespace


def _builtin(walk: Walk, name: str) -> bytes:
    """A name that the module does not have: Python's, or what somebody has put there."""
    walk.note_unfollowed(name)
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
            walk.note_unfollowed(".".join((module.__name__, *chain)))
        return walk.package(home, module.__name__)
    firsts: dict[str, set[Chain]] = {}
    for chain in chains:
        if not chain:
            return walk.definition(module)
        firsts.setdefault(chain[0], set()).add(chain[1:])
    parts = (_attribute(walk, module, name, firsts[name]) for name in sorted(firsts.keys() - _PLACES))
    return combine(b"o", [compiled(module), *parts])


def whole(walk: Walk, module: ModuleType) -> bytes:
    """A module that is passed on as a value: all that is in it."""
    home = owner_of(vars(module))
    if home is not None:
        return walk.package(home, module.__name__)
    walk.watch.whole(module)
    names = sorted(vars(module).keys() - _PLACES - _NOTES)
    kind = b"" if type(module) is ModuleType else walk.definition(type(module))
    return combine(b"o", [compiled(module), kind, *(_attribute(walk, module, name, {()}) for name in names)])


def _attribute(walk: Walk, module: ModuleType, name: str, rest: set[Chain]) -> bytes:
    label = text(b"n", name)
    if name in vars(module):
        return combine(b":", [label, _global(walk, module, module.__name__, name, rest)])
    walk.watch.name(module, name, MISSING)
    made_there = vars(module).get("__getattr__")
    return combine(b":", [label, b"" if made_there is None else walk.token(made_there)])


# -- import statements in functions ------------------------------------------------------------------------


def _import(walk: Walk, namespace: dict[str, Any], wanted: Import, chains: set[Chain]) -> bytes:
    """What an import statement inside a function gives, as far as the function uses it."""
    name = absolute(wanted.module, wanted.level, namespace)
    if name is None:
        return b"missing"
    home = owner_by_name(name)
    if home is not None:
        for chain in chains or {()}:
            walk.note_unfollowed(".".join((name, *filter(None, (wanted.name,)), *chain)))
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
