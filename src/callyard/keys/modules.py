"""Modules as a function's import statements find them, and those that have no source."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from types import ModuleType
from typing import Any

from .tokens import content, text

_EXTENSIONS = (".so", ".pyd", ".dylib")
_contents: dict[tuple[str, int, int], bytes] = {}


def absolute(name: str, level: int, namespace: dict[str, Any]) -> str | None:
    """The full name of what an import statement in this namespace names."""
    if not level:
        return name
    try:
        return importlib.util.resolve_name("." * level + name, namespace.get("__package__") or "")
    except ImportError:
        return None


def load(name: str) -> ModuleType | bytes | None:
    """A module of the user's, imported now, so that it can be looked into.

    One that cannot be imported here, because what it needs is elsewhere, counts by its file; None if there is none.
    """
    found = sys.modules.get(name)
    if isinstance(found, ModuleType) and not _is_being_loaded(found):
        return found
    try:
        if found is None and importlib.util.find_spec(name) is None:
            return None
        return importlib.import_module(name)
    except Exception:  # a module may do anything when it is imported
        return _unimportable(name)


def _is_being_loaded(module: ModuleType) -> bool:
    """By another thread: importing it again waits for that."""
    return bool(getattr(getattr(module, "__spec__", None), "_initializing", False))


def _unimportable(name: str) -> bytes | None:
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # its package cannot be imported either
        return text(b"!", name)
    if spec is None or spec.origin is None or not os.path.isfile(spec.origin):
        return text(b"!", name)
    return file_content(spec.origin)


def compiled(module: ModuleType | None) -> bytes:
    """The content of a module that has no source; b"" for others."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(_EXTENSIONS):
        return b""
    return file_content(file)


def file_content(path: str) -> bytes:
    try:
        status = os.stat(path)
        place = path, status.st_mtime_ns, status.st_size
        if place not in _contents:
            with open(path, "rb") as file:
                _contents[place] = content(b"b", memoryview(file.read()))
        return _contents[place]
    except OSError:
        return text(b"!", path)
