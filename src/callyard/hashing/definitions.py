"""The meaning of functions and classes: their code and all that it reaches by name.

A walk begins at one definition, its root, and numbers the definitions that it comes to. Each is described once, with
the numbers of those that it leads to, so that functions that call each other end it. The walk is taken again only if
something that it looked at has changed.
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import Any

from ..serialize import importable
from ..serialize.importable import by_reference, is_at_its_name
from . import bytecode, classes, metadata, reachable, reflection, syntax_tree, value_caches
from .decorator import choice
from .digest import UnkeyableError, combine, text
from .identity_memo import Memo
from .invalidation import ChangeWatch
from .packages import Package, compiled, module_of, owner, owner_of
from .values import Lenient


class WalkResult:
    """What a walk found: the token of its root, and why."""

    __slots__ = (
        *("differences", "ingredients", "parts", "reads_metadata", "references"),
        *("token", "unfollowed", "unkeyed", "watch"),
    )

    def __init__(self, walk: Walk, token: bytes) -> None:
        self.token = token
        self.watch = walk.watch
        self.ingredients = walk.ingredients  # label -> token
        self.differences = importable.differences  # what is imported by a worker may have changed since
        self.references = walk.references  # user's code that does not travel, as (module, name)
        self.unkeyed = walk.unkeyed
        self.unfollowed = walk.unfollowed
        self.reads_metadata = walk.reads_metadata
        self.parts: dict[bool, Any] = {}  # of keys, that were made of it: see `key.function_part`


_MADE_AT_RUN_TIME = 1 << 9  # a flag of classes: Py_TPFLAGS_HEAPTYPE
_known: Memo[WalkResult] = Memo()
_known_with_metadata: Memo[WalkResult] = Memo()


def rooted(root: Any, with_metadata: bool = False) -> WalkResult:
    """What `root`, a function, a class or a module, means now; see `metadata` for what else may count."""
    memo = _known_with_metadata if with_metadata else _known
    known = memo.get(root)
    if known is not None and known.differences == importable.differences and known.watch.unchanged():
        return known
    walk = Walk(with_metadata)
    return memo.put(root, WalkResult(walk, walk.take(root)))


class Walk(Lenient):
    """One walk. Tokens that it makes of definitions mean something only inside it."""

    def __init__(self, with_metadata: bool = False) -> None:
        super().__init__()
        self.counts_metadata = with_metadata
        self.watch = ChangeWatch()
        self.ingredients: dict[str, bytes] = {}
        self.unfollowed: dict[str, None] = {}
        self.travels = True  # what is looked at now is sent to the worker, not imported there
        self.where = ""  # for people: the name that is looked at
        self.numbered = 0  # how often a token was made that means something only here
        self._numbers: dict[int, int] = {}
        self._found: list[tuple[Any, bool]] = []  # each with whether it travels

    def take(self, root: Any) -> bytes:
        self.definition(root)
        parts = []
        for thing, travels in self._found:  # grows on the way
            self.travels, self.where = travels, name_of(thing)
            parts.append(self._describe(thing))
        self.watch.complete()
        return combine(b"D", parts)

    def definition(self, thing: Any) -> bytes:
        self.numbered += 1
        number = self._numbers.get(id(thing))
        if number is None:
            number = self._numbers[id(thing)] = len(self._found)
            self._found.append((thing, self.travels))
        elif self.travels and not self._found[number][1] and _is_users(thing) and by_reference(thing):
            self.references[thing.__module__, thing.__qualname__] = None
        return b"@%d" % number

    def sentinel(self, value: Any) -> bytes:
        return self.definition(value)

    # -- one definition --------------------------------------------------------------------------------

    def _describe(self, thing: Any) -> bytes:
        if isinstance(thing, ModuleType):
            return self._with_metadata(thing, reachable.whole(self, thing))
        if type(thing) is object:
            return b"object"
        chosen = choice(thing)
        if chosen is not None:
            self.watch.choice(thing, chosen)
            if chosen.version is not None:
                return self._version(thing, chosen.version)
        home = _home(thing)
        by_name = self._by_name(thing, home)
        if by_name is not None:
            return by_name
        if isinstance(thing, type):
            return self._with_metadata(thing, classes.describe(self, thing, home))
        if type(thing) is FunctionType:
            return self._with_metadata(thing, self._function(thing, home))
        return self._builtin(thing, home)

    def _by_name(self, thing: Any, home: Package | None) -> bytes | None:
        """Of what an installed package has under its name. What a worker imports of the user's is noted."""
        if home is not None and home == owner(module_of(thing)) and is_at_its_name(thing):
            return self.package(home, thing.__module__, thing.__qualname__)
        if self.travels and _is_users(thing) and by_reference(thing):
            self.references[thing.__module__, thing.__qualname__] = None
            self.travels = False
        if home is not None and isinstance(thing, type) and not thing.__flags__ & _MADE_AT_RUN_TIME:
            return self.package(home, thing.__module__, thing.__qualname__)
        return None

    def _with_metadata(self, thing: Any, made: bytes) -> bytes:
        return combine(b"+", [made, *metadata.tokens(self, thing)]) if self.counts_metadata else made

    def _version(self, thing: Any, version: str) -> bytes:
        made = text(b"V", _module_name(thing), thing.__qualname__, version)
        self.note(f"version of {name_of(thing)}", made)
        return made

    def package(self, package: Package, *names: str) -> bytes:
        """Something of an installed package, by the names that lead to it there."""
        self.note_use(".".join(names))
        self.ingredients[f"package {package.name}"] = text(b"I", package.name, package.version)
        return text(b"I", package.name, package.version, *names)

    def _builtin(self, function: Any, home: Package | None) -> bytes:
        """A function of an extension module: by that module's content, if it is the user's."""
        module, name = str(function.__module__), str(getattr(function, "__qualname__", function))
        if home is not None:
            return self.package(home, module, name)
        return combine(b"X", [text(b"n", name), compiled(sys.modules.get(module))])

    def _function(self, function: FunctionType, home: Package | None) -> bytes:
        code = function.__code__
        self.watch.function(function)
        own = code_token(code)
        self.note(f"code of {name_of(function)}", own)
        parts = [own, text(b"n", function.__name__), self.step(".__defaults__", function.__defaults__)]
        parts.append(self.step(".__kwdefaults__", function.__kwdefaults__))
        for number in value_caches.cell_numbers(function):
            name = code.co_freevars[number]
            parts += [name.encode(), self._cell(function, name, (function.__closure__ or ())[number])]
        parts.append(self.step(".__dict__", value_caches.attributes(function)))
        if home is not None:  # its globals are the package's
            annotations = self.step(".__annotations__", function.__annotations__) if function.__closure__ else b""
            return combine(b"J", [self.package(home, str(function.__globals__.get("__name__"))), annotations, *parts])
        return combine(b"U", [*parts, *reachable.reads(self, function)])

    def _cell(self, function: FunctionType, name: str, cell: Any) -> bytes:
        try:
            value = cell.cell_contents
        except ValueError:
            return b"empty"
        if isinstance(value, ModuleType):
            return reachable.module_reads(self, value, bytecode.reads(function.__code__).variables.get(name, {()}))
        return self.step(f" {name}", value)

    # -- noting ----------------------------------------------------------------------------------------

    def step(self, step: str, value: Any) -> bytes:
        """The token of a part of what is looked at."""
        where, self.where = self.where, self.where + step
        try:
            return self.token(value)
        finally:
            self.where = where

    def note(self, label: str, token: bytes) -> None:
        """An ingredient, for people: two may have one name."""
        before = self.ingredients.get(label)
        self.ingredients[label] = token if before in (None, token) else combine(b"&", [before or b"", token])

    def note_value(self, label: str, value: Any, made: bytes, numbered: int) -> None:
        """One that is data, by a token that means something in other walks too."""
        self.note(label, made if self.numbered == numbered else _Named().token(value))

    def note_use(self, name: str, whole: bool = False) -> None:
        """That a name of Python's or of a library's is used; `whole`: a module, for all that it has."""
        if reflection.is_unfollowed(name, whole):
            self.unfollowed[name] = None
        self.reads_metadata = max(self.reads_metadata, reflection.metadata_read_by(name, whole))

    def note_special(self, names: set[str]) -> None:
        """That code names these attributes, of whatever."""
        self.unfollowed.update(dict.fromkeys(reflection.unfollowed_among(names)))
        self.reads_metadata = max(self.reads_metadata, reflection.metadata_among(names))

    def unkeyable(self, value: Any, error: UnkeyableError) -> bytes:
        """Something in a global that no key can tell: a lock, an open file. It counts by its type."""
        if type(value).__name__ not in _QUIET:
            self.unkeyed[self.where or "a value"] = type(value).__qualname__
        return super().unkeyable(value, error)


_QUIET = frozenset(("ReferenceType", "WeakKeyDictionary", "WeakValueDictionary", "WeakSet", "_abc_data"))


class _Named(Lenient):
    """Makes tokens to compare one walk with another: definitions by their names."""

    def definition(self, thing: Any) -> bytes:
        return text(b"d", name_of(thing))


_codes: Memo[bytes] = Memo()


def code_token(code: Any) -> bytes:
    """By the syntax tree if that is proven, otherwise by the instructions."""
    return _codes.get(code) or _codes.put(code, _code_token(code))


def _code_token(code: Any) -> bytes:
    tree = syntax_tree.function_of(code)
    try:
        made = bytecode.meaning(code) if tree is None else syntax_tree.meaning(tree[0])
    except RecursionError:  # an expression that is very long
        made = bytecode.meaning(code)
    private = sorted(set(bytecode.private_names(code)))
    return combine(b"_", [made, text(b"n", *private)]) if private else made


def _home(thing: Any) -> Package | None:
    """Whose code it is; that of a function is where its globals are, whatever `functools.wraps` says."""
    if type(thing) is FunctionType:
        return owner_of(thing.__globals__)
    return owner(module_of(thing))


def _is_users(thing: Any) -> bool:
    return not isinstance(thing, ModuleType) and owner(module_of(thing)) is None


def _module_name(thing: Any) -> str:
    module = module_of(thing)
    if module != "__main__":
        return module
    return str(getattr(sys.modules.get("__main__"), "__file__", "") or "").rpartition("/")[2]


def name_of(thing: Any) -> str:
    """What people call a definition."""
    if isinstance(thing, ModuleType):  # that may have a __getattr__
        return str(vars(thing).get("__name__"))
    module = module_of(thing)
    name = getattr(thing, "__qualname__", None) or getattr(thing, "__name__", None) or repr(thing)
    return name if module in ("__main__", "builtins", "") else f"{module}.{name}"
