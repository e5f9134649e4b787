"""The decision whether another process can import a module, so that only names have to travel.

The other process is a fresh interpreter of this environment with this `sys.path`. It does not find a module that
pytest, a notebook or `spec_from_file_location` made, and it finds another one under the name of a module that was
loaded from elsewhere.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from itertools import accumulate
from types import ModuleType
from typing import Any

from cloudpickle.cloudpickle import list_registry_pickle_by_value

_MAIN = frozenset(("__main__", "__mp_main__"))
_STANDARD = (BuiltinImporter, FrozenImporter, PathFinder)

# The decisions, each with the module object for which it was made.
_decided: dict[str, tuple[Callable[[], Any], bool]] = {}
differences = 0  # how often it changed which modules others find in the version that is here
_differing: dict[str, Any] = {}  # modules that others find in another version, with the specs that they had then
_path: list[str] = []
_thread = threading.local()
_by_value: set[str] = set()
importing: set[str] = set()  # modules that travelled by value because their import was not complete


def differ(modules: Iterable[str]) -> None:
    """Note that others find another version of these modules than the one that is loaded here.

    It holds until they are loaded again.
    """
    global differences
    differences += 1
    for module in modules:
        parts = module.split(".")
        for length in range(len(parts)):  # its packages too, because it is looked for in them
            name = ".".join(parts[: length + 1])
            _differing[name] = getattr(sys.modules.get(name), "__spec__", None)
    _decided.clear()


@contextlib.contextmanager
def apart(modules: Iterable[str]) -> Iterator[None]:
    """Let the definitions of these modules travel by value, in this thread and inside the block."""
    _thread.apart = frozenset(package for module in modules for package in accumulate(module.split("."), _dotted))
    try:
        yield
    finally:
        del _thread.apart


def sending_apart() -> bool:
    """Tell whether this thread is in such a block."""
    return hasattr(_thread, "apart")


def _dotted(package: str, name: str) -> str:
    return f"{package}.{name}"


def by_reference(obj: Any) -> bool:
    """Tell whether another process finds this object by importing its module and following its qualified name."""
    name = getattr(obj, "__module__", None)
    return type(name) is str and importable(name) and is_at_its_name(obj)


def is_at_its_name(obj: Any) -> bool:
    """Tell whether an object is found under its qualified name in the module that it names, as loaded here."""
    found = sys.modules.get(obj.__module__)
    try:
        for attribute in (getattr(obj, "__qualname__", None) or obj.__name__).split("."):
            found = getattr(found, attribute)
    except Exception:  # a module may have a __getattr__ of its own
        return False
    return found is obj


def importable(name: str) -> bool:
    """Tell whether another process finds the module that is loaded here under this name."""
    module = sys.modules.get(name)
    if module is None or name in getattr(_thread, "apart", ()):
        return False
    _check_circumstances()
    known = _decided.get(name)
    if known is not None and known[0]() is module:
        return known[1]
    decision = _decide(name, module)
    if not importing:  # a module that is being imported will be importable soon
        _decided[name] = (_weakly(module), decision)
    return decision


def being_imported(module: ModuleType | None) -> bool:
    """Tell whether the module's code still runs. A worker that imported it would run it, and its calls, again."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def settle() -> bool:
    """Note the modules whose import is complete by now; return whether there are any."""
    global differences
    complete = {name for name in importing if not being_imported(sys.modules.get(name))}
    importing.difference_update(complete)
    differences += len(complete)
    return bool(complete)


def _check_circumstances() -> None:
    global _path, _by_value
    registered = list_registry_pickle_by_value()
    if sys.path != _path or registered != _by_value:
        _decided.clear()
        _path, _by_value = list(sys.path), registered


def _weakly(module: Any) -> Callable[[], Any]:
    try:
        return weakref.ref(module)
    except TypeError:  # anything may be put into sys.modules
        return lambda: module


def _decide(name: str, module: ModuleType) -> bool:
    if name in _MAIN or name in _by_value:
        return False
    if being_imported(module):
        importing.add(name)
        return False
    if name in _differing and _differing[name] is getattr(module, "__spec__", None):
        return False
    parent = name.rpartition(".")[0]
    if parent and not importable(parent):
        return False
    spec = _find(name, getattr(sys.modules[parent], "__path__", ()) if parent else None)
    if spec is None:
        # Made by its parent when that is imported, as torch._C._nn, or a second name, as six.moves.
        own_file = getattr(module, "__file__", None)
        return bool(parent) and (own_file is None or getattr(module, "__name__", name) != name)
    return _same_origin(spec, module)


def _find(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if _elsewhere_too(finder, name):
            try:
                spec = finder.find_spec(name, path)
            except Exception:  # a finder that fails finds nothing
                continue
            if spec is not None:
                return spec
    return None


def _elsewhere_too(finder: Any, name: str) -> bool:
    """Tell whether another process has this finder when it imports `name`."""
    if finder in _STANDARD:
        return True
    module = getattr(finder, "__module__", None) or ""
    package = name.partition(".")[0]
    # Editable installs add theirs at start-up, packages when they are imported.
    return "editable" in module or module.partition(".")[0] == package


def _same_origin(found: ModuleSpec, module: ModuleType) -> bool:
    own = getattr(module, "__spec__", None)
    origin = own.origin if own is not None else getattr(module, "__file__", None)
    if found.origin == origin:
        return True
    try:
        return os.path.samefile(str(found.origin), str(origin))
    except OSError:
        return False
