"""The values in the reach of code by name: globals, attributes of modules, and imports inside functions."""

from __future__ import annotations

import builtins
import sys
from collections.abc import Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from ..serialize.import_statements import absolute_name
from ..serialize.importable import importable
from . import bytecode
from .bind_arguments import TRANSPARENT
from .bytecode import Chain, Import
from .definition_walk import Walk
from .digest import combine, text
from .invalidation import MISSING
from .packages import compiled, load, module_of, owner, owner_by_name, owner_of

# Names in a module for its location, without effect on results.
_PLACES = frozenset(
    (
        *("__builtins__", "__name__", "__file__", "__doc__", "__class__", "__package__", "__path__"),
        *("__spec__", "__loader__", "__cached__", "__debug__"),
    )
)
_TELLING = frozenset(("__doc__", "__name__", "__package__"))  # names independent of the location
_INNER = {**TRANSPARENT, FunctionType: "__wrapped__"}
_NOTES = frozenset(("__annotations__", "__annotate__", "__conditional_annotations__", "__warningregistry__"))


def reads(walk: Walk, function: FunctionType) -> Iterable[bytes]:
    """Yield the tokens of all values read by a function's code by name, and of its imports."""
    found = bytecode.reads(function.__code__)
    module = str(function.__globals__.get("__name__"))
    walk.note_special(found.special)
    for name in sorted(found.names.keys() - (_PLACES - _TELLING)):
        yield text(b"n", name)
        yield _global(walk, function, module, name, found.names[name])
    for wanted in found.imports:
        yield text(b"i", wanted.module, wanted.name or "")
        chains: set[Chain] = {()} if wanted.variable is None else found.variables.get(wanted.variable, set())
        yield _import(walk, function.__globals__, wanted, chains)


def _global(walk: Walk, holder: Any, module: str, name: str, chains: set[Chain]) -> bytes:
    """Return the token of a global of `module`; `holder` gives the namespace: one of its functions, or the module."""
    namespace = holder.__globals__ if type(holder) is FunctionType else vars(holder)
    value = namespace.get(name, MISSING)
    walk.watch.name(holder, name, value)
    if value is MISSING:
        return _builtin(walk, name)
    if isinstance(value, ModuleType):
        return module_reads(walk, value, chains)
    where, travels, numbered = walk.where, walk.travels, walk.numbered
    if owner(module) is None:
        walk.modules.add(module)
    walk.where = f"{module}.{name}"
    is_definition = type(value) is FunctionType or isinstance(value, type)
    if travels and not is_definition and owner(module) is None and _is_imported(module, namespace):
        walk.references[module, name] = None
        walk.travels = False
    try:
        made = walk.token(value)
    finally:
        walk.where, walk.travels = where, travels
    if not is_definition:
        walk.note_value(f"global {module}.{name}", value, made, numbered)
    return made


def _is_imported(module: str, namespace: dict[str, Any]) -> bool:
    """Return True if a worker finds this namespace by importing the module."""
    return importable(module) and vars(sys.modules[module]) is namespace


def _builtin(walk: Walk, name: str) -> bytes:
    """Return the token of a name absent in the module: a name of Python, or one added to `builtins`."""
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
    """Return the token of the attributes read of a module, or of the whole module if () is among the chains."""
    package = owner_of(vars(module))
    if package is not None:
        for chain in chains:
            walk.note_use(".".join((module.__name__, *chain)), whole=not chain)
        return _package_reads(walk, module, walk.package(package, module.__name__), chains)
    walk.watch.kind(module)
    firsts: dict[str, set[Chain]] = {}
    for chain in chains:
        if not chain or _is_of_its_class(module, chain[0]):
            return walk.definition(module)
        firsts.setdefault(chain[0], set()).add(chain[1:])
    names = sorted(firsts.keys() - (_PLACES - _TELLING))
    return combine(b"o", [compiled(module), *(_attribute(walk, module, name, firsts[name]) for name in names)])


def _package_reads(walk: Walk, module: ModuleType, version: bytes, chains: Iterable[Chain]) -> bytes:
    """Return the token of the attributes read of an installed module: its version, and the user's own among them.

    A module of the user's may be part of an installed namespace, and a program may replace functions of a library.
    """
    mine: dict[tuple[str, str], tuple[ModuleType, set[Chain]]] = {}
    for chain in chains:
        holder = module
        for number, name in enumerate(chain, 1):
            value = vars(holder).get(name, MISSING)
            walk.watch.library_name(holder, name, value)
            if _is_users_own(value):
                mine.setdefault((holder.__name__, name), (holder, set()))[1].add(chain[number:])
            elif isinstance(value, ModuleType):
                holder = value
                continue
            break
    if not mine:
        return version
    parts = (text(b"n", *place) + _global(walk, mine[place][0], *place, mine[place][1]) for place in sorted(mine))
    return combine(b"o", [version, *parts])


def _is_users_own(value: Any, depth: int = 20) -> bool:
    """Return True for a module, function or class of the user's, judged by a module that is loaded.

    Also for what calls one: a wrapper, a partial, a method, or an object of a class with `__call__`.
    """
    if isinstance(value, ModuleType):
        return sys.modules.get(str(vars(value).get("__name__"))) is value and owner_of(vars(value)) is None
    if isinstance(value, type):
        return module_of(value) in sys.modules and owner(module_of(value)) is None
    if type(value) in _INNER:
        inner = getattr(value, _INNER[type(value)], None)  # may lead back to itself
        if inner is not None and depth and _is_users_own(inner, depth - 1):
            return True
    if type(value) is not FunctionType:
        return callable(value) and _is_users_own(type(value))
    module = sys.modules.get(str(value.__globals__.get("__name__")))
    return getattr(module, "__dict__", None) is value.__globals__ and owner_of(value.__globals__) is None


def _is_of_its_class(module: ModuleType, name: str) -> bool:
    """Return True for an attribute of the module's class: `__dict__` leads to all names in the module."""
    if type(module) is not ModuleType:  # a class of the user's may compute any attribute
        return True
    return name not in vars(module) and name not in _PLACES and hasattr(ModuleType, name)


def whole(walk: Walk, module: ModuleType) -> bytes:
    """Return the token of a module used as a value: its whole content counts."""
    package = owner_of(vars(module))
    if package is not None:
        walk.note_use(module.__name__, whole=True)
        return walk.package(package, module.__name__)
    walk.watch.kind(module)
    walk.watch.whole(module)
    names = sorted(vars(module).keys() - _PLACES - _NOTES)
    kind = b"" if type(module) is ModuleType else walk.definition(type(module))
    parts = (_attribute(walk, module, name, _all_of(module, name)) for name in names)
    return combine(b"o", [compiled(module), kind, *parts])


def _all_of(module: ModuleType, name: str) -> set[Chain]:
    """Return the chains for the use of a whole value: {()}; none for a library imported by the module."""
    value = vars(module)[name]
    return set() if isinstance(value, ModuleType) and owner_of(vars(value)) is not None else {()}


def _attribute(walk: Walk, module: ModuleType, name: str, rest: set[Chain]) -> bytes:
    label = text(b"n", name)
    given = _definition_on_demand(module, name) if walk.loads else MISSING
    if name in vars(module):  # perhaps since a moment
        return combine(b":", [label, _global(walk, module, module.__name__, name, rest)])
    walk.watch.name(module, name, MISSING)
    if "__getattr__" not in vars(module):
        walk.watch.name(module, "__getattr__", MISSING)
        return combine(b":", [label])
    if given is not MISSING:
        made = module_reads(walk, given, rest) if isinstance(given, ModuleType) else walk.token(given)
        _watch_found(walk, module, name, given)
        return combine(b":", [label, made])
    return combine(b":", [label, _global(walk, module, module.__name__, "__getattr__", {()})])


def _definition_on_demand(module: ModuleType, name: str) -> Any:
    """Return the module, function or class that a module's `__getattr__` has for a name, as packages do that import
    their parts at the first use; MISSING for data, which follow from the code of `__getattr__`.

    The code of `__getattr__` runs for each walk, for data too, but not for each key.
    """
    if name in vars(module) or "__getattr__" not in vars(module):
        return MISSING
    try:
        found = getattr(module, name)  # may warn of a deprecated name; to silence that would silence other threads
    except (Exception, SystemExit):  # from code of the module
        return MISSING
    return found if isinstance(found, (ModuleType, FunctionType, type)) else MISSING


def _watch_found(walk: Walk, module: ModuleType, wanted: str, found: ModuleType | FunctionType | type) -> None:
    """Note where the `__getattr__` of a module has found a definition, so that it need not run again for each key.

    What its code reads is watched as well, without imports: it may choose by a global.
    """
    finder = vars(module)["__getattr__"]
    walk.watch.name(module, "__getattr__", finder)
    walk.watched.append(finder)
    walk.watch.is_described = False
    is_module = isinstance(found, ModuleType)
    place = str(vars(found).get("__name__")) if is_module else module_of(found)
    home = sys.modules.get(place)
    if not isinstance(home, ModuleType):
        return
    walk.watch.module(place)
    names = () if is_module else (found.__name__, wanted)
    for name in names:
        if vars(home).get(name) is found:
            walk.watch.name(home, name, found)
            return


# -- import statements in functions ------------------------------------------------------------------------


def _import(walk: Walk, namespace: dict[str, Any], wanted: Import, chains: set[Chain]) -> bytes:
    """Return the token of an import inside a function, as far as the function uses the imported name."""
    name = absolute_name(wanted.module, wanted.level, namespace)
    if name is None:
        return b"missing"
    package = owner_by_name(name)
    if package is not None and wanted.name and owner_by_name(f"{name}.{wanted.name}") is None:
        return _import(walk, namespace, Import(f"{name}.{wanted.name}", 0, None, wanted.variable), chains)
    if package is not None:
        first = name.partition(".")[0]
        place = first if wanted.name is None and wanted.variable == first else name  # `import a.b` gives a
        for chain in chains:
            walk.note_use(".".join((place, *filter(None, (wanted.name,)), *chain)), whole=not chain)
        version, loaded = walk.package(package, package.name), sys.modules.get(place)
        if not isinstance(loaded, ModuleType):
            return version
        return _package_reads(walk, loaded, version, {(*filter(None, (wanted.name,)), *chain) for chain in chains})
    module = _loaded(walk, name)
    if not isinstance(module, ModuleType):
        return module or b"missing"  # not importable here, so the file counts
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
    """Import a module, see `load`; return the token of any other object that the module has put into its place."""
    if not walk.loads and name not in sys.modules:
        return None
    found = load(name)
    if found is None or isinstance(found, (ModuleType, bytes)):
        walk.watch.module(name)
        return found
    walk.watch.value(lambda: sys.modules.get(name))
    return walk.step(f" {name}", found)
