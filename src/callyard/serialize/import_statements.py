"""Import statements inside functions received by value, which must find the modules received with the functions.

A worker may find another version of such a module on its own path, or have imported one before. So `__import__` is
replaced: in a function of a replica, a statement first looks among the modules from the same process.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from types import ModuleType

from ..utils.lite_stdlib import Any, Callable, Sequence

Find = Callable[
    [dict[str, Any], str], "ModuleType | None"
]  # (namespace, name of a module) -> the module it means there
_plain = builtins.__import__
_finds: list[Find] = []  # the function to ask first, if set


def absolute_name(name: str, level: int, namespace: dict[str, Any]) -> str | None:
    """Return the full name for the module name and level of an import statement in this namespace, or None."""
    if not level:
        return name
    import importlib.util  # here, so that a worker starts without this module

    try:
        return importlib.util.resolve_name("." * level + name, namespace.get("__package__") or "")
    except (ImportError, ValueError):
        return None


def look_first(find: Find) -> None:
    """Make import statements ask `find` first."""
    import importlib.util  # noqa: F401  # now, because nothing may be imported while an import statement runs

    _finds[:] = [find]
    builtins.__import__ = _import


def _import(
    name: str,
    globals: Any = None,  # noqa: A002  # some callers of `__import__` use keywords
    locals: Any = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    full = absolute_name(name, level, globals) if globals is not None else None
    found = _finds[0](globals, full if fromlist else full.partition(".")[0]) if full else None
    return _plain(name, globals, locals, fromlist or (), level) if found is None else found


def load_another(name: str, instead_of: ModuleType) -> ModuleType:
    """Import the module of this name from the path, although `sys.modules` has another module of the name."""
    if sys.modules.get(name) is not instead_of:
        return importlib.import_module(name)
    del sys.modules[name]
    try:
        return importlib.import_module(name)
    finally:
        sys.modules[name] = instead_of
