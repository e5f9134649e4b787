"""Import statements inside functions that travelled by value: they mean the modules that travelled with them.

A worker may find another version of such a module on its own path, or have imported one before. So `__import__` is
replaced: in a function of a replica, the name of a module that came from the same process means that module.
"""

from __future__ import annotations

import builtins
import importlib
import sys
from types import ModuleType

from ..utils.lite_typing import Any, Callable, Sequence

Find = Callable[
    [dict[str, Any], str], "ModuleType | None"
]  # (namespace, name of a module) -> the module it means there
_plain = builtins.__import__
_finds: list[Find] = []  # the function that is asked first, if there is one


def absolute_name(name: str, level: int, namespace: dict[str, Any]) -> str | None:
    """Return the full name of the module that an import statement in this namespace names; None if it has none."""
    if not level:
        return name
    import importlib.util  # here, so that a worker starts without it

    try:
        return importlib.util.resolve_name("." * level + name, namespace.get("__package__") or "")
    except (ImportError, ValueError):
        return None


def look_first(find: Find) -> None:
    """Let import statements ask `find` before they look anywhere else."""
    import importlib.util  # noqa: F401  # now, because nothing may be imported while an import statement runs

    _finds[:] = [find]
    builtins.__import__ = _import


def _import(
    name: str,
    globals: Any = None,  # noqa: A002  # as it is called by keyword, too
    locals: Any = None,  # noqa: A002
    fromlist: Sequence[str] | None = (),
    level: int = 0,
) -> ModuleType:
    full = absolute_name(name, level, globals) if globals is not None else None
    found = _finds[0](globals, full if fromlist else full.partition(".")[0]) if full else None
    return _plain(name, globals, locals, fromlist or (), level) if found is None else found


def load_another(name: str, instead_of: ModuleType) -> ModuleType:
    """Import the module of this name that is found here, although another has its place in `sys.modules`."""
    if sys.modules.get(name) is not instead_of:
        return importlib.import_module(name)
    del sys.modules[name]
    try:
        return importlib.import_module(name)
    finally:
        sys.modules[name] = instead_of
