"""The functions that the pickles in files call when they are read, to make arrays, classes and functions again.

Files outlive the process that wrote them: these names and their parameters are part of the file format, and so are
those of `serialize.reconstruct`. A module of Callyard that such a pickle may name can move if `MOVED` says where to.
"""

from __future__ import annotations

import io
import pickle
import sys
import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...errors import VersionMismatch
from ...serialize import object_identity

Key = tuple[str, int]

CODE = str(sys.implementation.cache_tag)  # whose bytecode this Python runs, as "cpython-311"

# Where the modules are now that files name. The left ones are of the time when the project had another name: of what it
# defined, pickles could hold the functions that they call, and whatever a user can get hold of.
MOVED: Mapping[str, str] = {
    "penstock.backends.local": "callyard.backends.local",
    "penstock.backends.slurm": "callyard.backends.slurm",
    "penstock.cache.cache": "callyard.cache.cache",
    "penstock.cache.unpickles": "callyard.cache.format.unpickle",
    "penstock.errors": "callyard.errors",
    "penstock.errors.broken": "callyard.errors.pool_errors",
    "penstock.executor": "callyard.executor",
    "penstock.futures": "callyard.futures",
    "penstock.keys.keyed": "callyard.hashing.decorator",
    "penstock.resources": "callyard.resources",
    "penstock.wire.building": "callyard.serialize.reconstruct",
}
_RENAMED = {"PenstockError": "CallyardError"}

_made: weakref.WeakValueDictionary[Key, type] = weakref.WeakValueDictionary()


def loads(data: Any, arrays: Iterable[Any] = ()) -> Any:
    """The object of a pickle; `arrays` are put where those were that were set apart, in their order."""
    return _Unpickler(io.BytesIO(data), buffers=arrays).load()


class _Unpickler(pickle.Unpickler):
    """The one of pickle, which also finds what has moved since the file was written."""

    def find_class(self, module: str, name: str) -> Any:
        moved = MOVED.get(module)
        return (
            super().find_class(module, name) if moved is None else super().find_class(moved, _RENAMED.get(name, name))
        )


def given(array: Any) -> Any:
    """An array that was set apart: pickle takes it from those given to `loads`."""
    return array


def load_class(module: str, name: str, key: Key, code: str, definition: bytes) -> Any:
    """A class that cannot be imported: that of this name here, otherwise as it was when it was written."""
    found = _find(module, name, key)
    return load_function(code, definition) if found is None else found


def load_function(code: str, definition: bytes) -> Any:
    if code != CODE:
        raise VersionMismatch(f"it holds code of {code}, and this is {CODE}: use that, or define the same names here")
    return loads(definition)


def make_class(module: str, name: str, key: Key, make: Callable[..., type], *args: Any) -> type:
    """A class without its attributes, which may refer to it, or the one that is here."""
    found = _find(module, name, key)
    return make(*args) if found is None else found


def fill_class(cls: type, state: tuple[str, str, Key, Callable[[type, Any], Any], Any]) -> None:
    module, name, key, fill, attributes = state
    if _find(module, name, key) is not cls:
        fill(cls, attributes)
        _made[key] = cls


def _find(module: str, name: str, key: Key) -> type | None:
    found: Any = sys.modules.get(module)
    for attribute in name.split("."):
        found = getattr(found, attribute, None)
    if isinstance(found, type):
        return found
    here: type | None = object_identity.find(key)
    return _made.get(key) if here is None else here
