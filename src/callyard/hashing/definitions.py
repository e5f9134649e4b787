"""Tokens of functions, classes and modules: of their code and everything in its reach by name.

A walk begins at one definition, its root, and describes each definition found. The result is used again as long as
its dependencies are unchanged (`invalidation`).
"""

from __future__ import annotations

import sys
from types import FunctionType, ModuleType
from typing import Any

from ..serialize import importable
from ..serialize.importable import by_reference, is_at_its_name
from . import bytecode, classes, metadata_tokens, reachable, value_caches
from .code import code_token
from .decorator import choice
from .definition_walk import Walk, is_users, name_of
from .digest import combine, text
from .identity_memo import Memo
from .imported_code import CodePlaces
from .packages import Package, compiled, module_of, owner, owner_of


class WalkResult:
    """The result of a walk: the token of its root, and the reasons for it."""

    __slots__ = (
        *("codes", "differences", "ingredients", "modules", "parts", "places", "reads_metadata", "references", "size"),
        *("token", "unfollowed", "unkeyed", "watch"),
    )

    def __init__(self, walk: Walk, token: bytes) -> None:
        self.token = token
        self.watch = walk.watch
        self.ingredients = walk.ingredients  # label -> token
        self.codes = walk.codes  # label -> code, for its text
        self.differences = importable.differences  # a later difference may change the code imported by a worker
        self.modules = walk.modules
        self.size = len(walk.found)  # definitions
        self.references = walk.references  # user code imported by a worker, as (module, name)
        self.unkeyed = walk.unkeyed
        self.unfollowed = walk.unfollowed
        self.reads_metadata = walk.reads_metadata
        self.parts: dict[bool, Any] = {}  # of keys, made from this result: see `call_key.function_part`
        self.places: list[CodePlaces | None] = []  # of this walk, once `code_places` has made them


_MADE_AT_RUN_TIME = 1 << 9  # a flag of classes: Py_TPFLAGS_HEAPTYPE
_known: Memo[WalkResult] = Memo()
_known_with_metadata: Memo[WalkResult] = Memo()


def rooted(root: Any, with_metadata: bool = False) -> WalkResult:
    """Return the present token of `root`, a function, a class or a module, and its reasons.

    Args:
        root: the start of the walk.
        with_metadata: True to count docstrings and annotations, see `metadata_tokens`.
    """
    memo = _known_with_metadata if with_metadata else _known
    known = memo.get(root)
    if known is not None and known.differences == importable.differences and known.watch.unchanged():
        return known
    walk = Walk(with_metadata)
    return memo.put(root, WalkResult(walk, _take(walk, root)))


def _take(walk: Walk, root: Any) -> bytes:
    walk.definition(root)
    parts = _describe_all(walk)
    if walk.watched:
        other = Walk()
        other.watch, other.loads = walk.watch, False
        for thing in walk.watched:
            other.token(thing)
        _describe_all(other)
    walk.watch.complete()
    return combine(b"D", parts)


def _describe_all(walk: Walk) -> list[bytes]:
    parts = []
    for thing, travels in walk.found:  # the list grows during the loop
        walk.travels, walk.where = travels, name_of(thing)
        parts.append(_describe(walk, thing))
    return parts


def _describe(walk: Walk, thing: Any) -> bytes:
    """Return the token of a definition, with numbers for the definitions in its code."""
    if isinstance(thing, ModuleType):
        return _with_metadata(walk, thing, reachable.whole(walk, thing))
    if type(thing) is object:
        return b"object"
    chosen = choice(thing)
    if chosen is not None:
        walk.watch.choice(thing, chosen)
        if chosen.version is not None:
            return _version(walk, thing, chosen.version)
    package = _package_of(thing)
    by_name = _by_name(walk, thing, package)
    if by_name is not None:
        return by_name
    if isinstance(thing, type):
        return _with_metadata(walk, thing, classes.describe(walk, thing, package))
    if type(thing) is FunctionType:
        return _with_metadata(walk, thing, _function(walk, thing, package))
    return _builtin(walk, thing, package)


def _package_of(thing: Any) -> Package | None:
    """Return the package of a definition. A function belongs to the module of its globals, not of `__module__`."""
    return owner_of(thing.__globals__) if type(thing) is FunctionType else owner(module_of(thing))


def _by_name(walk: Walk, thing: Any, package: Package | None) -> bytes | None:
    """Return the token of a definition by its name in a package; None for a definition of the user's.

    A user's definition imported by a worker is noted.
    """
    if package is not None and package == owner(module_of(thing)) and is_at_its_name(thing):
        return walk.package(package, thing.__module__, thing.__qualname__)
    if walk.travels and is_users(thing) and by_reference(thing):
        walk.references[thing.__module__, thing.__qualname__] = None
        walk.travels = False
    if package is not None and isinstance(thing, type) and not thing.__flags__ & _MADE_AT_RUN_TIME:
        return walk.package(package, thing.__module__, thing.__qualname__)
    return None


def _with_metadata(walk: Walk, thing: Any, made: bytes) -> bytes:
    return combine(b"+", [made, *metadata_tokens.tokens(walk, thing)]) if walk.counts_metadata else made


def _version(walk: Walk, thing: Any, version: str) -> bytes:
    """Return the token of a definition by the user's version in place of the code."""
    module = module_of(thing)
    if module == "__main__":
        module = str(getattr(sys.modules.get("__main__"), "__file__", "") or "").rpartition("/")[2]
    made = text(b"V", module, thing.__qualname__, version)
    walk.note(f"version of {name_of(thing)}", made)
    return made


def _builtin(walk: Walk, function: Any, package: Package | None) -> bytes:
    """Return the token of a function of an extension module: by the content of a user's module."""
    module, name = str(function.__module__), str(getattr(function, "__qualname__", function))
    if package is not None:
        return walk.package(package, module, name)
    return combine(b"X", [text(b"n", name), compiled(sys.modules.get(module))])


def _function(walk: Walk, function: FunctionType, package: Package | None) -> bytes:
    code = function.__code__
    walk.watch.function(function)
    own = code_token(code)
    label = f"code of {name_of(function)}"
    walk.note(label, own)
    walk.codes.setdefault(label, code)
    parts = [own, text(b"n", function.__name__), walk.step(".__defaults__", function.__defaults__)]
    parts.append(walk.step(".__kwdefaults__", function.__kwdefaults__))
    for number in value_caches.cell_numbers(function):
        name = code.co_freevars[number]
        parts += [name.encode(), _cell(walk, function, name, (function.__closure__ or ())[number])]
    parts.append(walk.step(".__dict__", value_caches.attributes(function)))
    parts += (walk.step(".__code__", value) for value in bytecode.other_constants(code))
    if package is not None:  # the package owns the globals of the function
        annotations = walk.step(".__annotations__", function.__annotations__) if function.__closure__ else b""
        return combine(b"J", [walk.package(package, str(function.__globals__.get("__name__"))), annotations, *parts])
    return combine(b"U", [*parts, *reachable.reads(walk, function)])


def _cell(walk: Walk, function: FunctionType, name: str, cell: Any) -> bytes:
    try:
        value = cell.cell_contents
    except ValueError:
        return b"empty"
    if isinstance(value, ModuleType):
        return reachable.module_reads(walk, value, bytecode.reads(function.__code__).variables.get(name, {()}))
    return walk.step(f" {name}", value)
