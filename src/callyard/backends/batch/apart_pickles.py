"""The second form of calls for their jobs: with the user's modules inside, of which the job may find other versions.

All modules in reach are inside, because any of them may be the edited one. To pickle some hundred definitions takes as
long as many calls, so the function of many calls is pickled once, for as long as nothing in its reach has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FunctionType
from typing import Any, NamedTuple

from ...hashing.definition_tokens import reach_size
from ...hashing.definitions import WalkResult, rooted
from ...hashing.imported_code import EXTENSIONS
from ...serialize.dump import Dump
from ...serialize.importable import apart, importable, is_at_its_name
from ...serialize.packer import note_futures
from .call_pickles import CallPickle, LargeContents, Pickling, pickle_call, share

__all__ = ["ApartPickles"]

_MANY = 100  # definitions that are not pickled for each call
_KEPT = 1 << 24  # bytes of a function that is kept for further calls


class _Function(NamedTuple):
    walk: WalkResult  # the same object as long as nothing has changed
    inside: frozenset[str]
    pickle: CallPickle
    dump: Dump  # keeps the objects alive, because ids tell which ones the arguments share


class ApartPickles:
    """The second forms of the calls of one executor. Several threads may use it at once."""

    def __init__(self, contents: LargeContents) -> None:
        self._contents = contents
        self._last: _Function | None = None
        self._costly: WalkResult | None = None  # of the function whose calls cost too much, by their arguments

    def of(self, parts: tuple[Any, Any, Any], modules: Iterable[str]) -> tuple[CallPickle, ...] | None:
        """Return function, arguments and keywords, pickled with these modules inside.

        Returns:
            None if none of the modules is imported by a job. None also for a call that cannot be sent in this form, or
            only at the cost of many calls: the job makes it if the code there is unchanged, and refuses it otherwise.
        """
        inside = frozenset(name for name in modules if importable(name) and not _is_compiled(name))
        if not inside:
            return None
        try:
            with apart(inside):
                return self._pickled(parts, inside)
        except Exception:  # of objects of the user's; the first form does not contain them
            return None

    def forget(self) -> None:
        """Free the function that is kept."""
        self._last = self._costly = None

    def _pickled(self, parts: tuple[Any, Any, Any], inside: frozenset[str]) -> tuple[CallPickle, ...] | None:
        function = self._function(parts[0], inside)
        if function is not None and function.walk is self._costly:
            return None
        if function is not None:
            rest = Pickling(parts[1:], note_futures([]))
            if not share(function.dump, rest.dump):
                return function.pickle, rest.kept(self._contents)
        if reach_size(parts[0]) <= _MANY:
            return pickle_call(parts, [], self._contents)
        self._costly = None if function is None else function.walk
        return None

    def _function(self, function: Any, inside: frozenset[str]) -> _Function | None:
        """Return the pickle of a function of a module; None for others, which may hold what is new each time."""
        if type(function) is not FunctionType or not is_at_its_name(function):
            return None
        walk, last = rooted(function), self._last
        if last is not None and last.walk is walk and last.inside == inside:
            return last
        futures: list[Any] = []
        pickling = Pickling(function, note_futures(futures))
        if futures:
            return None
        last = _Function(walk, inside, pickling.kept(self._contents), pickling.dump)
        self._last = last if sum(each.size for each in last.pickle.buffers) <= _KEPT else None
        return last


def _is_compiled(module: str) -> bool:
    return str(getattr(sys.modules.get(module), "__file__", "")).endswith(EXTENSIONS)
