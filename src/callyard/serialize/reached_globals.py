"""The globals in the reach of functions sent by value.

The pickle of a function holds names, not values, so functions may refer to each other. Each global travels as a pickle
of its own, with a version for each value. A snapshot of the value shows changes; a value that can change unseen, such
as a list, is pickled again for a comparison of the pickles.
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
from .importable import by_reference, importable, sending_apart, sending_far
from .module_namespace import UNSENT, ModuleNamespace, SentGlobals, Variable, space_of, space_of_module, spaces
from .names_in_code import names

MISSING: Any = object()

lock = new_lock()  # guards versions; reentrant, because a finalizer may submit while this thread holds the lock


class ReachedNames(NamedTuple):
    """The globals, submodules and source texts in the reach of a function."""

    variables: list[Variable]
    imports: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]  # file names and texts


def value_of(variable: Variable) -> Any:
    space, name = variable
    return space.globals().get(name, MISSING)


def sent_globals(space: ModuleNamespace) -> dict[str, SentGlobals]:
    """Return the globals as sent last to the readers that this thread sends to; nothing for a reader of one pickle."""
    if sending_apart():
        return {}
    return space.sent_far if sending_far() else space.sent


def last_sent(variable: Variable) -> SentGlobals | None:
    """Return the global as sent last; None if never sent, or for a reader that has received nothing before."""
    return sent_globals(variable[0]).get(variable[1])


def replace(variables: tuple[Variable, ...], new: SentGlobals) -> SentGlobals:
    """Store the new form of these globals for sending, and return the form; without a change, the form sent last."""
    known = last_sent(variables[0])
    if known is not None and _same(known, new) and all(last_sent(variable) is known for variable in variables):
        return known
    for space, name in variables:
        sent_globals(space)[name] = new
    return new


def deleted(variable: Variable) -> SentGlobals | None:
    """Return the form for sending a deleted global; None if the global never had a value."""
    known = last_sent(variable)
    return known if known is None or known.data is None else replace((variable,), SentGlobals(None, (variable,)))


def _same(known: SentGlobals, new: SentGlobals) -> bool:
    return known.has_content(new.data, new.variables, new.refs) and known.functions == new.functions


def forget_pickles() -> None:
    """Drop all snapshots, so that each value is pickled anew: parts of a value may have to travel by value now."""
    for space in spaces():
        for sent in [*space.sent.values(), *space.sent_far.values()]:
            sent.snapshot = None


def variable_of(thing: Any) -> Variable | None:
    """Return the global with this function or class; None without one, or for an importable module."""
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
    """Yield the names of globals in code, except those never sent."""
    return (name for name in names(code).globals if name not in UNSENT)


def reached_by(function: FunctionType) -> ReachedNames:
    """Return the needs of this function, but not the needs of its globals in turn."""
    _, everything, imported = names(function.__code__)
    wanted = tuple(globals_of(function.__code__))
    held = map(content, function.__closure__ or ())
    namespace = function.__globals__
    values = [*(namespace[name] for name in wanted if name in namespace), *held]
    modules = [value for value in values if type(value) is ModuleType]
    if at_import(function) is None:  # a function from an import runs its import statements in the reader
        modules.extend(_imported(namespace, imported))
    variables = [] if at_import(function) else [(space_of(function), name) for name in wanted]
    for module in modules:
        if not is_importable(module):
            variables.extend(_inside(module, everything))
    imports = dict.fromkeys(name for module in modules for name in _submodules(module.__name__, everything))
    return ReachedNames(variables, tuple(imports), source(function.__code__))


def _imported(namespace: dict[str, Any], imports: Iterable[tuple[str, int]]) -> Iterator[ModuleType]:
    """Yield the modules of import statements inside a function, if loaded here and not importable elsewhere."""
    for name, level in sorted(imports):
        found = absolute_name(name, level, namespace)
        packages = [] if found is None else found.split(".")
        for length in range(len(packages)):
            module = sys.modules.get(".".join(packages[: length + 1]))
            if type(module) is ModuleType and module.__name__ != "__main__" and not is_importable(module):
                yield module


def at_import(function: FunctionType) -> str | None:
    """Return the name of the importable module with the function's globals; None if there is none."""
    name: Any = function.__globals__.get("__name__")
    module = sys.modules.get(name) if type(name) is str else None
    if module is None or vars(module) is not function.__globals__ or not importable(name):
        return None
    return str(name)


def hooked_globals(function: FunctionType) -> dict[str, Any]:
    """Return globals that an import hook may have added, as pytest does for assertions; the reader has no hook.

    Only importable values count; the module's own definitions are in the reader anyway.
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


def _inside(module: ModuleType, attributes: frozenset[str]) -> Iterator[Variable]:
    """Yield the possible globals of `module.attribute` in code, for a module sent by value."""
    space = space_of_module(module)
    given = "__getattr__" in vars(module)
    if given:
        yield space, "__getattr__"
    for name in sorted(attributes - UNSENT):  # names without a value too, because one may be set later
        yield space, name
        value = vars(module).get(name) or (sys.modules.get(f"{module.__name__}.{name}") if given else None)
        if type(value) is ModuleType and value is not module and not is_importable(value):
            yield from _inside(value, attributes - {name})


def _submodules(package: str, attributes: frozenset[str]) -> Iterator[str]:
    """Yield the possible submodules of `package.attribute` in code, for an imported package."""
    for attribute in sorted(attributes):
        name = f"{package}.{attribute}"
        if name in sys.modules and importable(name):
            yield name
            yield from _submodules(name, attributes)


def source(code: CodeType) -> tuple[tuple[str, str], ...]:
    """Return file name and text of code without a file, such as a notebook cell or a doctest, for tracebacks."""
    filename = code.co_filename
    entry = linecache.cache.get(filename)
    if entry is None and not filename.startswith("<"):
        return ()
    if entry is not None and (len(entry) == 1 or entry[1] is not None or os.path.exists(filename)):
        return ()
    text = "".join(linecache.getlines(filename))
    return ((filename, text),) if text else ()


os.register_at_fork(after_in_child=lock._at_fork_reinit)  # a thread missing in the child may have held the lock
