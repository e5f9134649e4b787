"""The package to which a module belongs: Python, an installed package, or none for the user's own code.

Code of packages counts by name and version, user code by its content. An editable install lies outside the directories
of installed packages, so it is user code.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from functools import lru_cache
from itertools import takewhile
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from ..serialize.importable import being_imported
from .digest import content, text
from .imported_code import EXTENSIONS

if TYPE_CHECKING:
    from importlib import metadata
    from importlib.machinery import ModuleSpec

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"  # without the number of the bug fix release
_INSTALLED = ("site-packages", "dist-packages")


class Package(NamedTuple):
    """An installed package and its version."""

    name: str
    version: str


_known: dict[str, tuple[Any, Package | None]] = {}


def owner(name: str | None) -> Package | None:
    """Return the package to which the module of this name belongs; None for a user's module."""
    module = sys.modules.get(name or "builtins")
    known = _known.get(name or "builtins")
    if known is not None and known[0] is module:
        return known[1]
    found = _find(name or "builtins", module)
    _known[name or "builtins"] = module, found
    return found


def owner_of(namespace: dict[str, Any]) -> Package | None:
    """Return the package of the module with this namespace; another module may have taken the name."""
    name = namespace.get("__name__")
    if type(name) is not str:
        return None
    module = sys.modules.get(name)
    if module is None or getattr(module, "__dict__", None) is namespace:
        return owner(name)
    found = SimpleNamespace(**{key: namespace[key] for key in ("__file__", "__path__") if key in namespace})
    return _find(name, found) if _place(found) is not None else None


def module_of(thing: Any) -> str:
    """Return an object's `__module__`; "" without one, as for types of Cython."""
    found = getattr(thing, "__module__", None)
    if found == "__mp_main__":  # the name of the script in processes of multiprocessing
        return "__main__"
    return found if isinstance(found, str) else ""


def owner_by_name(name: str) -> Package | None:
    """Return the package of a module without loading the module."""
    top = name.partition(".")[0]
    package = _owner_of_top(top)
    if package is None or top == name:
        return package
    if name in sys.modules:
        return package if owner(name) is not None else None
    found = _part_with_file(name) if _is_namespace(top) else None  # each may be of another owner
    return package if found is None or _find(*found) is not None else None


def _is_namespace(top: str) -> bool:
    """Return True for a package without a file, whose modules are found without loading any code."""
    if top in sys.modules:
        names = getattr(sys.modules[top], "__dict__", {})
        return "__path__" in names and names.get("__file__") is None
    spec = _spec(top)
    return spec is not None and spec.origin is None


def _owner_of_top(top: str) -> Package | None:
    if top in sys.modules:
        return owner(top)
    spec = _spec(top)
    if spec is None:
        return None
    return Package("python", PYTHON) if spec.origin in ("built-in", "frozen") else _find(top, _described(top, spec))


def _spec(name: str) -> ModuleSpec | None:
    """Return the spec of a module that is not loaded; None if there is none with a place."""
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # a finder may do anything
        return None
    return None if spec is None or (spec.origin is None and not spec.submodule_search_locations) else spec


def _part_with_file(name: str) -> tuple[str, Any] | None:
    """Return the first part with a file of a name in a namespace, and its module; None if there is none.

    The modules below have the same owner. No module is loaded, where `importlib.util.find_spec` loads those above.
    """
    parts, path, found = name.split("."), None, None
    for count, last in enumerate(parts, 1):
        place = ".".join(parts[:count])
        found = sys.modules.get(place)
        if found is None:
            spec = _spec(last) if path is None else _spec_in(path, place)
            found = None if spec is None else _described(place, spec)
        names = getattr(found, "__dict__", {})
        if names.get("__file__") is not None:
            return place, found
        path = list(names.get("__path__", ()))
        if not path:
            return None
    return name, found


def _spec_in(path: list[str], name: str) -> ModuleSpec | None:
    """Return the spec of a module below a namespace with this path."""
    from importlib.machinery import PathFinder

    try:  # the last part alone, because the parents of a full name must be loaded
        found = PathFinder.find_spec(name.rpartition(".")[2], path)
        others = (finder for finder in sys.meta_path if finder is not PathFinder)  # as of an editable install
        return found or next(filter(None, (finder.find_spec(name, path) for finder in others)), None)
    except Exception:  # a finder may do anything
        return None


def _described(name: str, spec: ModuleSpec) -> ModuleType:
    """Return a module with the place of another."""
    found = ModuleType(name)
    if spec.origin is not None:
        found.__file__ = spec.origin
    if spec.submodule_search_locations is not None:
        found.__path__ = list(spec.submodule_search_locations)
    return found


def _find(name: str, module: Any) -> Package | None:
    top = name.partition(".")[0]
    if top == "callyard":
        from ..version import VERSION

        return Package("callyard", VERSION)
    if module is None or name == "__main__":
        return None
    place = _place(module) or _place(sys.modules.get(top))
    if place is None:
        built_in = top in sys.builtin_module_names or top in sys.stdlib_module_names
        return Package("python", PYTHON) if built_in else None
    if _is_standard(place, top):
        return Package("python", PYTHON)
    version = getattr(sys.modules.get(top), "__dict__", {}).get("__version__")
    return _distribution(_root(place, name, module), top) or (
        Package(top, version) if isinstance(version, str) and _is_installed(place) else None
    )


def _is_installed(place: str) -> bool:
    return any(part in place.split(os.sep) for part in _INSTALLED)


def _place(module: Any) -> str | None:
    """Return the file of a module, or the directory of a package without a file."""
    names = getattr(module, "__dict__", {})  # not by getattr, because the module may have a __getattr__
    file = names.get("__file__")
    if isinstance(file, str):
        return os.path.abspath(file)
    path = list(names.get("__path__", ()))
    return os.path.abspath(path[0]) if path and isinstance(path[0], str) else None


@lru_cache(maxsize=1)
def _standard() -> tuple[str, ...]:
    """Return the directories of the standard library; without `sysconfig`, which is slow to import."""
    places = os.path.dirname(os.__file__), f"{sys.base_exec_prefix}/{sys.platlibdir}/python{PYTHON}"
    return tuple({os.path.realpath(place) + os.sep for place in places})


def _is_standard(place: str, top: str) -> bool:
    inside = os.path.realpath(place).startswith(_standard())
    return inside and top in sys.stdlib_module_names and not _is_installed(place)


def _root(place: str, name: str, module: Any) -> str:
    """Return the directory of the module on the import path."""
    is_package = "__path__" in getattr(module, "__dict__", {})
    if is_package and not os.path.isdir(place):
        place = os.path.dirname(place)
    for _ in name.split("."):
        place = os.path.dirname(place)
    return place


@lru_cache(maxsize=1024)
def _distribution(root: str, top: str) -> Package | None:
    installed = os.path.basename(root) in _INSTALLED
    notes = [entry for entry in _listing(root) if entry.endswith(".dist-info")]
    if not installed and not notes:
        return None
    version = _version_of(root, notes, top)
    if version is not None:
        return Package(top, version)
    from importlib import metadata  # here and below, because this import is slow

    for found in metadata.distributions(name=top, path=[root]):
        if installed or _is_wheel(found):
            return Package(top, found.version)
    names = [f"{name} {version}" for name, version in _distributions(root).get(top, ())]
    return Package(top, ", ".join(sorted(names))) if names else None


def version_file(top: str) -> str | None:
    """Return the file with the version of a loaded package of this name; None if the version is found otherwise."""
    module = sys.modules.get(top)
    place = _place(module)
    root = None if place is None else _root(place, top, module)
    path = None if root is None else _metadata(root, _listing(root), top)
    return path if path is not None and os.path.isfile(path) else None


def _metadata(root: str, notes: list[str], top: str) -> str | None:
    """Return the path of the metadata of the distribution with the module's name."""
    mine = [note for note in notes if note.endswith(".dist-info") and _plain(note.partition("-")[0]) == _plain(top)]
    return f"{root}/{mine[0]}/METADATA" if mine else None


def _version_of(root: str, notes: list[str], top: str) -> str | None:
    """Return the version of the distribution with the module's name, without loading `importlib.metadata`."""
    try:
        with open(_metadata(root, notes, top) or "", encoding="utf-8") as file:
            head = takewhile(str.strip, file)  # up to the first blank line
            return next((line[8:].strip() for line in head if line.startswith("Version:")), None)
    except (OSError, ValueError):
        return None


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _is_wheel(distribution: metadata.Distribution) -> bool:
    """Return True for an installed distribution; an .egg-info beside the source is left by an old editable install."""
    return str(getattr(distribution, "_path", "")).endswith(".dist-info")


def _listing(directory: str) -> list[str]:
    try:
        return os.listdir(directory)
    except OSError:
        return []


@lru_cache(maxsize=64)
def _distributions(root: str) -> dict[str, list[tuple[str, str]]]:
    """Return the distributions installed in a directory, by the names of their modules."""
    found: dict[str, list[tuple[str, str]]] = {}
    from importlib import metadata

    for distribution in metadata.distributions(path=[root]):
        entry = distribution.metadata["Name"] or "", distribution.version
        for top in _tops(distribution):
            found.setdefault(top, []).append(entry)
    return found


def _tops(distribution: metadata.Distribution) -> set[str]:
    listed = distribution.read_text("top_level.txt")
    if listed:
        return set(listed.split())
    record = distribution.read_text("RECORD")
    if record:  # as text, because to parse all records of a large environment takes seconds
        return {line.split(",", 1)[0].split("/", 1)[0].partition(".")[0] for line in record.splitlines()}
    return {file.parts[0].partition(".")[0] for file in distribution.files or ()}


_contents: dict[tuple[str, int, int], bytes] = {}


def load(name: str) -> object:
    """Import a module of the user's, so that its content counts.

    Returns:
        The module, or another object that the module has put into its place; the token of its file (bytes) after a
        failed import. None if there is no such module.
    """
    found = sys.modules.get(name)
    if isinstance(found, ModuleType) and not being_imported(found):  # another import would wait for the first
        return found
    try:
        if found is None and importlib.util.find_spec(name) is None:
            return None
        return importlib.import_module(name)
    except Exception:  # from code of the module
        return _unimportable(name)


def _unimportable(name: str) -> bytes | None:
    try:
        spec = importlib.util.find_spec(name)
    except Exception:  # the import of the package fails too
        return text(b"!", name)
    if spec is None or spec.origin is None or not os.path.isfile(spec.origin):
        return text(b"!", name)
    return file_content(spec.origin)


def compiled(module: ModuleType | None) -> bytes:
    """Return the token of the content of an extension module; b"" for other modules."""
    file = getattr(module, "__file__", None)
    if not isinstance(file, str) or not file.endswith(EXTENSIONS):
        return b""
    return file_content(file)


def file_content(path: str) -> bytes:
    """Return the token of a file's content. The file is read again only after a change of its size or time."""
    try:
        status = os.stat(path)
        place = path, status.st_mtime_ns, status.st_size
        if place not in _contents:
            with open(path, "rb") as file:
                _contents[place] = content(b"b", memoryview(file.read()))
        return _contents[place]
    except OSError:
        return text(b"!", path)
