"""The walk through the reach of a definition: the definitions found, and the notes taken.

A walk numbers the definitions in the order of finding. Each is described once, with the numbers of the definitions
in its code, so the walk ends in spite of functions that call each other.
"""

from __future__ import annotations

from types import CodeType, ModuleType
from typing import Any

from ..serialize.importable import by_reference
from . import metadata_readers
from .digest import UnkeyableError, combine, text
from .encoder import LenientEncoder
from .invalidation import ChangeWatch
from .packages import Package, module_of, owner

# Types without tokens whose objects do not change results, so that a warning would only disturb.
_QUIET = frozenset(("ReferenceType", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "_abc_data"))


class Walk(LenientEncoder):
    """An encoder with numbers for definitions, so that its tokens are valid only inside this walk."""

    def __init__(self, with_metadata: bool = False) -> None:
        super().__init__()
        self.counts_metadata = with_metadata
        self.watch = ChangeWatch()
        self.ingredients: dict[str, bytes] = {}
        self.codes: dict[str, CodeType] = {}  # by the labels of ingredients, for their texts
        self.references: dict[tuple[str, str], None] = {}  # module and name of user code imported by a worker
        self.modules: set[str] = set()  # of the user's, with all definitions and data in reach
        self.unkeyed: dict[str, str] = {}  # values without tokens: the expression, and the type
        self.unfollowed: dict[str, None] = {}
        self.reads_metadata = 0  # see `reflection`
        self.travels = True  # True if the present definition is sent to the worker, not imported there
        self.where = ""  # the present place, for people
        self.numbered = 0  # number of tokens so far that are valid only inside this walk
        self.found: list[tuple[Any, bool]] = []  # the definitions, each with True if sent to the worker
        self.loads = True  # False to import nothing
        self.watched: list[Any] = []  # functions of modules that find definitions, but do not count themselves
        self._numbers: dict[int, int] = {}  # their indices there, by id

    def definition(self, thing: Any) -> bytes:
        self.numbered += 1
        number = self._numbers.get(id(thing))
        if number is None:
            number = self._numbers[id(thing)] = len(self.found)
            self.found.append((thing, self.travels))
            if is_users(thing):
                self.modules.add(module_of(thing))
        elif self.travels and not self.found[number][1] and is_users(thing) and by_reference(thing):
            self.references[thing.__module__, thing.__qualname__] = None
        return b"@%d" % number

    def imported(self, thing: Any) -> None:
        if self.travels and is_users(thing) and by_reference(thing):
            self.references[thing.__module__, thing.__qualname__] = None

    def sentinel(self, value: Any) -> bytes:
        return self.definition(value)

    def unkeyable(self, value: Any, error: UnkeyableError) -> bytes:
        """Note a global with a value without a token, such as a lock or an open file. The type counts instead."""
        if type(value).__name__ not in _QUIET:
            self.unkeyed[self.where or "a value"] = type(value).__qualname__
        return super().unkeyable(value, error)

    def package(self, package: Package, *names: str) -> bytes:
        """Return the token of a part of an installed package, by its module and qualified name."""
        self.note_use(".".join(names))
        self.ingredients[f"package {package.name}"] = text(b"I", package.name, package.version)
        return text(b"I", package.name, package.version, *names)

    def step(self, step: str, value: Any) -> bytes:
        """Return the token of a part of the present definition."""
        where, self.where = self.where, self.where + step
        try:
            return self.token(value)
        finally:
            self.where = where

    # -- notes -----------------------------------------------------------------------------------------

    def note(self, label: str, token: bytes) -> None:
        """Note an ingredient, for people. Two things may have one label."""
        before = self.ingredients.get(label)
        self.ingredients[label] = token if before in (None, token) else combine(b"&", [before or b"", token])

    def note_value(self, label: str, value: Any, made: bytes, numbered: int) -> None:
        """Note data as an ingredient, by a token comparable with tokens of other walks."""
        self.note(label, made if self.numbered == numbered else _NameEncoder().token(value))

    def note_use(self, name: str, whole: bool = False) -> None:
        """Note the use of a name of Python or a library; `whole`: of a module with all its content."""
        if metadata_readers.is_unfollowed(name, whole):
            self.unfollowed[name] = None
        self.reads_metadata = max(self.reads_metadata, metadata_readers.metadata_read_by(name, whole))

    def note_special(self, names: set[str]) -> None:
        """Note attribute names in code, of any object."""
        self.unfollowed.update(dict.fromkeys(metadata_readers.unfollowed_among(names)))
        self.reads_metadata = max(self.reads_metadata, metadata_readers.metadata_among(names))


class _NameEncoder(LenientEncoder):
    """An encoder with names for definitions, so that tokens of two walks can be compared."""

    def definition(self, thing: Any) -> bytes:
        return text(b"d", name_of(thing))


def is_users(thing: Any) -> bool:
    """Return True for a function or class of the user's own."""
    return not isinstance(thing, ModuleType) and owner(module_of(thing)) is None


def name_of(thing: Any) -> str:
    """Return the name of a definition, for people."""
    if isinstance(thing, ModuleType):  # a module may have a __getattr__
        return str(vars(thing).get("__name__"))
    module = module_of(thing)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or repr(thing)
    return name if module in ("__main__", "builtins", "") else f"{module}.{name}"
