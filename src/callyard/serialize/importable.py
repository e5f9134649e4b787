"""Importable modules: modules that another process finds under the same name, so that only names have to travel.

The other process is a fresh interpreter of this environment with this `sys.path`. Modules made by pytest, a notebook
or `spec_from_file_location` do not exist there, and a module loaded here from elsewhere is another one there.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import weakref
from collections.abc import Callable, Container, Iterable, Iterator
from importlib.machinery import BuiltinImporter, FrozenImporter, ModuleSpec, PathFinder
from itertools import accumulate
from types import ModuleType
from typing import Any

from cloudpickle.cloudpickle import list_registry_pickle_by_value

_MAIN = frozenset(("__main__", "__mp_main__"))
_STANDARD = (BuiltinImporter, FrozenImporter, PathFinder)

# The decisions by module name, each with the module object at the time.
_decided: dict[str, tuple[Callable[[], Any], bool]] = {}
differences = 0  # the number of changes of decisions so far
_differing: dict[str, Any] = {}  # modules of another version elsewhere, each with its spec at the time
_path: list[str] = []
_thread = threading.local()
_by_value: set[str] = set()
importing: set[str] = set()  # modules sent by value during their import


def differ(modules: Iterable[str]) -> None:
    """Note other versions of these modules in other processes, until the modules are reloaded here."""
    global differences
    differences += 1
    for module in modules:
        parts = module.split(".")
        for length in range(len(parts)):  # the packages too, because their paths lead to the module
            name = ".".join(parts[: length + 1])
            _differing[name] = getattr(sys.modules.get(name), "__spec__", None)
    _decided.clear()


@contextlib.contextmanager
def apart(modules: Iterable[str]) -> Iterator[None]:
    """Send the definitions of these modules by value, in this thread and inside the block."""
    with _sending(frozenset(package for module in modules for package in accumulate(module.split("."), _dotted))):
        yield


@contextlib.contextmanager
def for_another_computer(is_there: Callable[[str], object]) -> Iterator[None]:
    """Send by value what is not installed on another computer, in this thread and inside the block.

    Args:
        is_there: returns True for the name of a module that is found there, too.
    """
    with _sending(_Except(is_there)):
        yield


@contextlib.contextmanager
def _sending(modules: Container[str]) -> Iterator[None]:
    before = getattr(_thread, "apart", None)  # inside such a block a finalizer may submit a call, which has its own
    _thread.apart = modules
    try:
        yield
    finally:
        if before is None:
            del _thread.apart
        else:
            _thread.apart = before


class _Except:
    """All names of modules but some."""

    def __init__(self, left_out: Callable[[str], object]) -> None:
        self._left_out = left_out

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and not self._left_out(name)


def sending_apart() -> bool:
    """Return True if this thread is inside `apart`."""
    return hasattr(_thread, "apart") and not sending_far()


def sending_far() -> bool:
    """Return True if this thread is inside `for_another_computer`."""
    return isinstance(getattr(_thread, "apart", None), _Except)


def _dotted(package: str, name: str) -> str:
    return f"{package}.{name}"


def by_reference(obj: Any) -> bool:
    """Return True if another process finds this object by module and qualified name."""
    name = getattr(obj, "__module__", None)
    return type(name) is str and importable(name) and is_at_its_name(obj)


def is_at_its_name(obj: Any) -> bool:
    """Return True if an object is found under its qualified name in the module, as loaded here."""
    found = sys.modules.get(obj.__module__)
    try:
        for attribute in (getattr(obj, "__qualname__", None) or obj.__name__).split("."):
            found = getattr(found, attribute)
    except Exception:  # a module may have a __getattr__ of its own
        return False
    return found is obj


def importable(name: str) -> bool:
    """Return True if another process finds the same module under this name as loaded here."""
    module = sys.modules.get(name)
    if module is None or name in getattr(_thread, "apart", ()):
        return False
    _check_circumstances()
    known = _decided.get(name)
    if known is not None and known[0]() is module:
        return known[1]
    decision = _decide(name, module)
    if not importing:  # the decision about a module during its import holds only for a moment
        _decided[name] = (_weakly(module), decision)
    return decision


def being_imported(module: ModuleType | None) -> bool:
    """Return True during the import of a module, whose code and calls another import in a worker would run again."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def settle() -> bool:
    """Note the modules whose import is complete by now; return True if there are any."""
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
    except TypeError:  # programs may put any object into sys.modules
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
        # Made by the import of its parent, as torch._C._nn, or a second name, as six.moves.
        own_file = getattr(module, "__file__", None)
        return bool(parent) and (own_file is None or getattr(module, "__name__", name) != name)
    return _same_origin(spec, module)


def _find(name: str, path: Any) -> ModuleSpec | None:
    for finder in sys.meta_path:
        if _elsewhere_too(finder, name):
            try:
                spec = finder.find_spec(name, path)
            except Exception:  # the same as not found
                continue
            if spec is not None:
                return spec
    return None


def _elsewhere_too(finder: Any, name: str) -> bool:
    """Return True if another process has this finder when importing `name`."""
    if finder in _STANDARD:
        return True
    module = getattr(finder, "__module__", None) or ""
    package = name.partition(".")[0]
    # Editable installs add their finders at start-up, packages when imported.
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
