"""The places read by a walk, in a form for other processes: see `imported_code`."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from types import FunctionType, ModuleType
from typing import Any

from ..serialize.importable import importable, is_at_its_name
from .definitions import WalkResult
from .imported_code import CodePlaces, Place, Undescribed, described
from .packages import compiled, owner, version_file

_CHECKED = frozenset(("python", "callyard"))  # packages whose versions are compared by others


def places_of(walk: WalkResult) -> CodePlaces | None:
    """Return the places of a walk and their digest; None if something there has no description."""
    if not walk.places:
        try:
            walk.places.append(_places(walk))
        except Exception:  # code of the user's may do anything
            walk.places.append(None)
    return walk.places[0]


def _places(walk: WalkResult) -> CodePlaces:
    watch = walk.watch
    if not watch.is_described or any(sys.modules.get(name) is None for name in watch.modules()):
        raise Undescribed("a dependency of another kind")
    found = [thing for thing in watch.definitions() if is_at_its_name(thing)]  # the others are parts of something
    definitions = tuple((str(thing.__module__), str(thing.__qualname__)) for thing in found)
    names = tuple((_module(holder), name) for holder, name in watch.names())
    places = CodePlaces(tuple(watch.modules()), definitions, names, (), ())
    _, modules, used = described(places)
    if any(owner(name) is None and compiled(sys.modules[name]) for name in {*modules, *watch.modules()}):
        raise Undescribed("an extension module of the user's, which counts by the content of its file")
    _check_definitions(used, definitions)
    inside = {owner(module) for module in (*modules, *(module for module, _ in used))}
    packages = {package.name for package in inside if package is not None}
    packages |= {label[8:] for label in walk.ingredients if label.startswith("package ")}
    others = tuple(sorted(packages - _CHECKED))
    places = places.replace(packages=others, notes=tuple(map(_version_file, others)))
    return places.replace(digest=described(places)[0])


def _module(holder: Any) -> str:
    """Return the module with the names of a function or module, as another process finds it."""
    space = holder.__globals__ if type(holder) is FunctionType else vars(holder)
    name = str(space["__name__"])
    module = sys.modules.get(name)
    if type(module) is not ModuleType or vars(module) is not space:
        raise Undescribed(name)
    if owner(name) is None and not importable(name):
        raise Undescribed(name)
    return name


def _check_definitions(used: Iterable[Place], described_ones: Iterable[Place]) -> None:
    """Raise Undescribed if a definition of the user's counts only by its name."""
    known = {*described_ones}
    for module, name in used:
        if owner(module) is None and (module, name) not in known:
            raise Undescribed(f"{module}.{name}")


def _version_file(package: str) -> str:
    path = version_file(package)
    if path is None:
        raise Undescribed(package)
    return path
