"""The pickler for files, read later by other processes without the `__main__` of the writer.

Importable classes and functions are stored by name, as always. Any other is stored as a pickle of its own within the
pickle, which is loaded only if the reader has no class of that name, or calls for the function.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable, Iterable
from types import FunctionType, ModuleType
from typing import Any

from cloudpickle.cloudpickle import dynamic_subimport, subimport

from ...hashing.files import File
from ...serialize import definition_identity, reconstruct
from ...serialize import pickler as wire
from ...serialize.importable import by_reference
from ...serialize.module_namespace import UNSENT, Needs, Variable
from ...serialize.reached_globals import at_import, is_importable
from .unpickle import CODE, fill_class, given, load_class, load_file, load_function, make_class

KeepFile = Callable[[File], tuple[str, str]]


class FilePickler(wire.Pickler):
    """The pickler for files.

    With `definition` the pickle is itself the definition of a class or function, in which classes and functions may
    refer to each other.
    """

    def __init__(
        self,
        file: Any,
        *,
        reduce: Callable[[Any], Any] | None = None,
        buffer_callback: Callable[[pickle.PickleBuffer], Any] | None = None,
        definition: bool = False,
    ) -> None:
        super().__init__(file, reduce=reduce, buffer_callback=buffer_callback)
        self._inside = definition

    def _function(self, function: FunctionType) -> Any:
        if by_reference(function):
            return NotImplemented
        return self._definition(function) if self._inside else (load_function, (CODE, _define(function)))

    def _reference(self, thing: Any) -> Any:
        return None  # the reader has no namespace of the writer

    def _definition(self, function: FunctionType) -> Any:
        if at_import(function) is None:
            return self._dynamic_function_reduce(function)  # together with the globals that it uses
        return super()._definition(function)

    def _class(self, cls: type) -> Any:
        reduced = super()._class(cls)
        if reduced is NotImplemented or reduced[0] is not reconstruct.dynamic_class:
            return reduced
        known = (cls.__module__, cls.__qualname__, definition_identity.identity(cls).key)
        if not self._inside:
            return load_class, (*known, CODE, _define(cls))
        _, (_, _, *make), (_, fill, attributes), *_ = reduced
        return make_class, (*known, *make), (*known, fill, attributes), None, None, fill_class

    def _module(self, module: ModuleType) -> Any:
        if is_importable(module):
            return NotImplemented
        if module.__name__ == "__main__":
            return subimport, ("__main__",)
        held = {name: value for name, value in vars(module).items() if name not in UNSENT}
        return dynamic_subimport, (module.__name__, held)

    def _needs(self, variables: Iterable[Variable]) -> Needs:
        return (), (), ()


def _define(thing: Any) -> bytes:
    with io.BytesIO() as file:
        FilePickler(file, definition=True).dump(thing)
        return file.getvalue()


def dumps(
    value: Any, apart: Callable[[Any], bool] | None = None, keep: KeepFile | None = None
) -> tuple[bytes, list[Any]]:
    """Return a pickle for `unpickle.loads`, and the objects left out of the pickle, for which `apart` was true.

    Args:
        value: the object.
        apart: is called with each object in it.
        keep: is called with each `File` in it, and returns the names of content and file; by default a `File` is its
            path.
    """
    taken: list[Any] = []
    slots: dict[int, pickle.PickleBuffer] = {}  # out-of-band buffers, in whose places the reader puts the objects

    def reduce(thing: Any) -> Any:
        if keep is not None and isinstance(thing, File):
            return load_file, keep(thing)
        if apart is None or not apart(thing):
            return NotImplemented
        slot = pickle.PickleBuffer(bytearray())
        slots[id(slot)] = slot
        taken.append(thing)
        return given, (slot,)

    with io.BytesIO() as file:
        FilePickler(file, reduce=reduce, buffer_callback=lambda buffer: id(buffer) not in slots).dump(value)
        return file.getvalue(), taken
