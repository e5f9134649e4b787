"""Calls packed for another computer: the function once for many calls, the arguments of each, and what both use."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from ...hashing.files import TravellingFile, noting_files
from ...serialize.function_registry import FunctionDefinition, FunctionRegistry
from ...serialize.importable import for_another_computer
from ...utils.locks import new_lock, under
from ..batch.call_pickles import CallPickle, LargeContents, pickle_arguments, pickle_call, pickle_function
from .used_packages import UsedPackages

__all__ = ["CallPacker", "PackedCallParts", "PackedFunction"]


class PackedFunction(NamedTuple):
    """A version of a function, sent to each gateway once. The definition lives as long as calls need it."""

    definition: FunctionDefinition
    pickle: CallPickle


class PackedCallParts(NamedTuple):
    """A packed call: the arguments, or function and arguments if `function` is None."""

    function: PackedFunction | None
    data: Sequence[CallPickle]
    packages: Mapping[str, str]  # names and versions of those that the call uses
    files: Sequence[TravellingFile]  # among the arguments


class CallPacker:
    """Packs the calls of one executor. Any thread may do anything here."""

    def __init__(self, contents: LargeContents) -> None:
        self._contents = contents
        self._registry = FunctionRegistry()
        self._lock = new_lock()  # reentrant: a finalizer may submit while this thread holds it
        self._known: weakref.WeakKeyDictionary[FunctionDefinition, tuple[CallPickle, Mapping[str, str]]]
        self._known = weakref.WeakKeyDictionary()

    def pack(
        self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any], sources: list[Any]
    ) -> PackedCallParts:
        """Pack a call in its present state, and append the futures among the arguments to `sources`."""
        definition = under(self._lock, self._define, fn)
        used = UsedPackages()
        with for_another_computer(used), noting_files() as files:
            if definition is not None:
                data = pickle_arguments((args, dict(kwargs)), sources, self._contents, definition)
                if data is not None:
                    pickled, packages = self._known[definition]
                    function = PackedFunction(definition, pickled)
                    return PackedCallParts(function, (data,), {**packages, **used.found}, files)
            whole = pickle_call((fn, args, dict(kwargs)), sources, self._contents)
        return PackedCallParts(None, whole, used.found, files)

    def _define(self, fn: Callable[..., Any]) -> FunctionDefinition | None:
        """Return the present version of a function; None for one that travels with the arguments."""
        used = UsedPackages()
        with for_another_computer(used):
            definition = self._registry.definition(fn)
        # Under the lock, as another thread that finds the new version must find its packages, too.
        if definition is not None and definition not in self._known:
            self._known[definition] = pickle_function(definition, self._contents), used.found
        return definition
