"""The functions called by pickles in files, to make arrays, classes and functions again.

Files outlive their writer: the names and parameters here are part of the file format, and so are the ones of
`serialize.reconstruct`. A module of Callyard named in such pickles can move if `MOVED` has its new name.
"""

from __future__ import annotations

import contextlib
import io
import pickle
import sys
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from ...errors import VersionMismatch
from ...hashing.files import File, file_at
from ...serialize import definition_identity
from ..directory import CacheDirectory
from ..kept_files import KeptFiles

Key = tuple[str, int]

CODE = str(sys.implementation.cache_tag)  # the kind of bytecode that this Python runs, as "cpython-311"

# The present names of modules named in files. The old ones are from the project's time under another name; pickles
# could hold the functions called by pickles, and all public objects.
MOVED: Mapping[str, str] = {
    "callyard.cache.cache": "callyard.result_cache",
    "penstock.backends.local": "callyard.backends.local",
    "penstock.backends.slurm": "callyard.backends.slurm",
    "penstock.cache.cache": "callyard.result_cache",
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


class _Place(threading.local):
    directory = ""  # of the cache whose entry this thread reads


_place = _Place()


@contextlib.contextmanager
def files_in(directory: str) -> Iterator[None]:
    """Take the files that pickles name from the cache in this directory, in this thread and inside the block."""
    before, _place.directory = _place.directory, directory
    try:
        yield
    finally:
        _place.directory = before


def loads(data: Any, arrays: Iterable[Any] = ()) -> Any:
    """Return the object of a pickle, with `arrays` in the places of the arrays beside it, in their order."""
    return _Unpickler(io.BytesIO(data), buffers=arrays).load()


def load_file(content: str, name: str) -> File:
    """Return a file that a result names, kept beside the entry."""
    return file_at(KeptFiles(CacheDirectory(_place.directory)).find(content, name))


class _Unpickler(pickle.Unpickler):
    """An unpickler that also finds modules that have moved since the file was written."""

    def find_class(self, module: str, name: str) -> Any:
        moved = MOVED.get(module)
        return (
            super().find_class(module, name) if moved is None else super().find_class(moved, _RENAMED.get(name, name))
        )


def given(array: Any) -> Any:
    """Return an array from beside the pickle; pickle takes it from those given to `loads`."""
    return array


def load_class(module: str, name: str, key: Key, code: str, definition: bytes) -> Any:
    """Return a class that was not importable: this process's class of the same name, or else the stored one."""
    found = _find(module, name, key)
    return load_function(code, definition) if found is None else found


def load_function(code: str, definition: bytes) -> Any:
    if code != CODE:
        raise VersionMismatch(f"it holds code of {code}, and this is {CODE}: use that, or define the same names here")
    return loads(definition)


def make_class(module: str, name: str, key: Key, make: Callable[..., type], *args: Any) -> type:
    """Return this process's class, or else a new one without its attributes, because they may refer to the class."""
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
    here: type | None = definition_identity.find(key)
    return _made.get(key) if here is None else here
