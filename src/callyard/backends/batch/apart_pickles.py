"""The second form of calls for their jobs: with the user's modules inside, of which the job may find other versions.

All modules in reach are inside, because any of them may be the edited one. To pickle some hundred definitions takes as
long as many calls, so the function of many calls is pickled once, for as long as nothing in its reach has changed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextlib import suppress
from types import FunctionType
from typing import Any, NamedTuple

from ...hashing.call_key import Reach
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
    pickle: CallPickle | None  # None: it cannot be sent
    dump: Dump | None  # keeps the objects alive, because ids tell which ones the arguments share


class ApartPickles:
    """The second forms of the calls of one executor. Several threads may use it at once."""

    def __init__(self, contents: LargeContents) -> None:
        self._contents = contents
        self._last: _Function | None = None

    def of(self, parts: tuple[Any, Any, Any], imported: frozenset[str], reach: Reach) -> tuple[CallPickle, ...] | None:
        """Return function, arguments and keywords, pickled with the modules in reach inside.

        Where this cannot be done, or only at the cost of many calls, only the modules with definitions that the call
        itself sends by name are inside.

        Returns:
            None if a job imports none of the modules. None also for a call that cannot be sent in this form: the job
            makes it if the code there is unchanged, and refuses it otherwise.
        """
        if not imported:
            return None
        inside = _inside(reach.modules)
        with suppress(Exception), apart(inside):  # an error of objects that the first form does not contain
            if inside and (found := self._with_all(parts, inside, reach.size)) is not None:
                return found
        inside = _inside(imported)
        with suppress(Exception), apart(inside):
            return pickle_call(parts, [], self._contents) if inside else None
        return None

    def forget(self) -> None:
        """Free the function that is kept."""
        self._last = None

    def _with_all(
        self, parts: tuple[Any, Any, Any], inside: frozenset[str], size: int
    ) -> tuple[CallPickle, ...] | None:
        walk = _walk(parts[0])
        if walk is not None and walk.size == size:  # so the arguments have no definitions in reach
            function = self._function(parts[0], walk, inside)
            if function.pickle is None or function.dump is None:
                return None
            rest = Pickling(parts[1:], note_futures([]))
            if not share(function.dump, rest.dump):
                return function.pickle, rest.kept(self._contents)
        return pickle_call(parts, [], self._contents) if size <= _MANY else None

    def _function(self, function: Any, walk: WalkResult, inside: frozenset[str]) -> _Function:
        last = self._last
        if last is not None and last.walk is walk and last.inside == inside:
            return last
        try:
            pickling = Pickling(function, None)
            last = _Function(walk, inside, pickling.kept(self._contents), pickling.dump)
        except Exception:  # of objects of the user's, or for a future
            last = _Function(walk, inside, None, None)
        kept = () if last.pickle is None else last.pickle.buffers
        self._last = last if sum(each.size for each in kept) <= _KEPT else None
        return last


def _walk(function: Any) -> WalkResult | None:
    """Return the walk of a function of a module; None for any other, which may hold what is new each time."""
    return rooted(function) if type(function) is FunctionType and is_at_its_name(function) else None


def _inside(modules: Iterable[str]) -> frozenset[str]:
    """Return the modules that a pickle can have inside."""
    return frozenset(name for name in modules if importable(name) and not _is_compiled(name))


def _is_compiled(module: str) -> bool:
    return str(getattr(sys.modules.get(module), "__file__", "")).endswith(EXTENSIONS)
