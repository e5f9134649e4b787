"""References by name inside pickles, for values that share objects with other globals.

Each class here is only pickled, never read back: the reduction calls a function of `reconstruct`, and this takes the
object from its namespace.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from . import reconstruct
from .module_namespace import GlobalName, Variable
from .reached_globals import value_of


class NameReference:
    """A placeholder for the value of a global, which the reader takes from the namespace."""

    def __init__(self, variable: Variable) -> None:
        self.variable = variable


class NameReferences:
    """References to pickle first, so that each later occurrence of an object refers to the global."""

    def __init__(self, variables: Iterable[Variable]) -> None:
        self.references = tuple(map(NameReference, variables))


class JointPickle:
    """Values of globals in one pickle; `refs` are other globals, with objects in these values."""

    def __init__(self, variables: tuple[Variable, ...], refs: Iterable[Variable]) -> None:
        self._variables, self._refs = variables, NameReferences(refs)

    def __reduce__(self) -> Any:
        values = map(value_of, self._variables)
        return reconstruct.together, (_names_of(self._variables), *self._refs.references, self._refs, *values)


class LentNames:
    """An object together with globals that share objects with it. The globals keep the values for one call."""

    def __init__(self, thing: Any, variables: tuple[Variable, ...], refs: Iterable[Variable]) -> None:
        self._thing, self._variables, self._refs = thing, variables, NameReferences(refs)

    def __reduce__(self) -> Any:
        values = tuple(map(value_of, self._variables))
        begin = _BeginLending(self._variables)
        return reconstruct.lend, (*self._refs.references, self._refs, begin, self._thing, values)


class _BeginLending:
    """The start of lending, pickled before the values, because the reader first saves the present values."""

    def __init__(self, variables: tuple[Variable, ...]) -> None:
        self._variables = variables

    def __reduce__(self) -> Any:
        return reconstruct.begin_to_lend, (_names_of(self._variables),)


def _names_of(variables: Iterable[Variable]) -> tuple[GlobalName, ...]:
    return tuple((space.header, name) for space, name in variables)
