"""The quick comparison of imported code with the code of a key, for processes that live for a moment.

A walk (`definitions`) follows the code, and loads most of this folder, which takes longer than most calls that are
jobs. But the process that made the key knows the places read by its own walk. What is at these places in another
process has a digest, made here in few steps from code, constants and names. With the same digest a walk would find the
same. Any other digest, and anything that this module cannot describe, is left to a walk; so errors are on that side.
"""

from __future__ import annotations

import marshal
import sys

from ..utils.lite_stdlib import Any, Frozen, Iterable
from .digest import blake2b

__all__ = ["EXTENSIONS", "CodePlaces", "Place", "Undescribed", "definition_at", "described", "is_imported"]

Place = tuple[str, str]  # a module, and a name in it

_ATOMS = frozenset((int, float, complex, bool, str, bytes, type(None), type(...)))
_FUNCTION, _CODE, _MODULE, _BUILTIN = type(lambda: None), type((lambda: None).__code__), type(sys), type(len)
_PROXY = type(vars(object))
# Attributes of a class for its location, or for people.
_SILENT = frozenset(
    (
        *("__module__", "__qualname__", "__doc__", "__dict__", "__weakref__", "__firstlineno__", "__slotnames__"),
        *("__static_attributes__", "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__"),
    )
)
EXTENSIONS = (".so", ".pyd", ".dylib")
_HEAD = 1 << 10  # bytes of the metadata of a package; the version comes third
_DEEPEST = 20  # levels of values inside values


class Undescribed(Exception):
    """A value, or a place, is beyond the quick comparison."""


class CodePlaces(Frozen):
    """The places read by a walk, and the digest of what is there."""

    modules: tuple[str, ...]  # modules imported by functions
    definitions: tuple[Place, ...]  # functions and classes of the user's, by qualified names
    names: tuple[Place, ...]  # globals, absent ones included
    packages: tuple[str, ...]  # installed packages, by the names of their modules
    notes: tuple[str, ...]  # the files with the versions of these packages
    digest: bytes = b""


def is_imported(places: CodePlaces) -> bool:
    """Return True if this process imports the code of the walk for certain; import it if necessary."""
    try:
        return described(places)[0] == places.digest
    except Exception:  # an import fails, or a value has no description
        return False


def described(places: CodePlaces) -> tuple[bytes, set[str], set[Place]]:
    """Return the digest of all that is at the places, and the modules and definitions that count by their names.

    Raises:
        Undescribed: a value has no description.
    """
    for module in places.modules:
        _module(module)
    describer = _Describer()
    parts = [
        [describer.definition(definition_at(*place)) for place in places.definitions],
        [describer.place(*place) for place in places.names],
        [_installed(*pair) for pair in zip(places.packages, places.notes, strict=True)],
    ]
    digest = blake2b(marshal.dumps(parts, 2), digest_size=20).digest()  # format 2 does not depend on shared objects
    return digest, describer.modules, describer.definitions


def _installed(package: str, note: str) -> tuple[str, bytes]:
    """Return the file of a package, and the head of the file with its version. The package is loaded already.

    Time and size of that file would not do: in images of containers all files may have one time.
    """
    if package not in sys.modules:
        raise Undescribed(package)
    with open(note, "rb", buffering=0) as file:
        head = file.read(_HEAD)
    if b"\nVersion:" not in head:
        raise Undescribed(package)
    return str(sys.modules[package].__file__), head


def _module(name: str) -> Any:
    __import__(name)
    return sys.modules[name]


def definition_at(module: str, name: str) -> Any:
    """Return the definition of this qualified name."""
    found = _module(module)
    for part in name.split("."):
        found = getattr(found, part)
    return found


class _Describer:
    """The makers of descriptions: nested lists of atoms."""

    def __init__(self) -> None:
        self.modules: set[str] = set()
        self.definitions: set[Place] = set()
        self._depth = 0

    def place(self, module: str, name: str) -> Any:
        namespace = vars(_module(module))
        return [name, *([self.value(namespace[name])] if name in namespace else [])]

    def definition(self, thing: Any) -> Any:
        """Return the description of a function or class by its content."""
        return self._class(thing) if isinstance(thing, type) else self._function(thing)

    def value(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return [kind.__name__, value]
        self._depth += 1
        try:
            if self._depth > _DEEPEST:
                raise Undescribed("nested too deeply")
            return [kind.__name__, *self._parts(kind, value)]
        finally:
            self._depth -= 1

    def _parts(self, kind: type, value: Any) -> Iterable[Any]:
        if kind is tuple or kind is list:
            return map(self.value, value)
        if kind is dict or kind is _PROXY:
            return [[self.value(key), self.value(held)] for key, held in value.items()]
        if kind is set or kind is frozenset:  # their order differs between processes
            return sorted(marshal.dumps(self.value(one), 2) for one in value)
        if kind is property:
            return map(self.value, (value.fget, value.fset, value.fdel))
        if kind is staticmethod or kind is classmethod:
            return [self.value(value.__func__)]
        if kind.__module__ == "dataclasses":  # fields, settings, and marks such as MISSING
            return [self.value(getattr(value, slot)) for slot in getattr(kind, "__slots__", ()) if slot != "type"]
        return [self._reached(kind, value)]

    def _reached(self, kind: type, value: Any) -> Any:
        """Return the description of a function, a class or a module that a definition reaches."""
        if value is NotImplemented:
            return ""
        if kind is _FUNCTION:
            return self._named(value) or self._function(value)
        if kind is _MODULE:
            return self._module(value)
        if isinstance(value, type) or (kind is _BUILTIN and type(value.__self__) in (_MODULE, type(None))):
            return self._named(value) or _undescribed(value)
        return _undescribed(value)

    def _named(self, thing: Any) -> Any:
        """Return the place of a definition that is found there, and has a description or a package of its own."""
        module, name = thing.__module__, getattr(thing, "__qualname__", thing.__name__)
        found = sys.modules.get(module)
        for part in name.split("."):
            found = getattr(found, part, None)
        if found is not thing:
            return None
        self.definitions.add((module, name))
        return [module, name]

    def _module(self, module: Any) -> Any:
        name = module.__name__
        if sys.modules.get(name) is not module:
            raise Undescribed(name)
        self.modules.add(name)
        return [name, str(vars(module).get("__file__")).endswith(EXTENSIONS)]

    def _function(self, function: Any) -> Any:
        if type(function) is not _FUNCTION:
            return _undescribed(function)
        home = function.__globals__["__name__"]
        if vars(sys.modules[home]) is not function.__globals__:
            return _undescribed(function)
        cells = [cell.cell_contents for cell in function.__closure__ or ()]  # ValueError for an empty one
        data = function.__defaults__, function.__kwdefaults__, function.__dict__, cells
        return [home, function.__name__, self._code(function.__code__), *map(self.value, data)]

    def _code(self, code: Any) -> Any:
        """Return the description of code without its place in a file."""
        return [
            *(code.co_name, code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags),
            *(code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars),
            *(code.co_code, getattr(code, "co_exceptiontable", b"")),
            *(self._code(one) if type(one) is _CODE else self.value(one) for one in code.co_consts),
        ]

    def _class(self, cls: Any) -> Any:
        if type(cls) is not type:
            return _undescribed(cls)
        bases = [self.value(base) for base in cls.__bases__]
        held = [[name, self.value(value)] for name, value in vars(cls).items() if name not in _SILENT]
        return [cls.__name__, cls.__qualname__, bases, held, self.value(_annotations(cls))]


def _annotations(cls: Any) -> Any:
    """Return the annotations of the class itself, which from Python 3.14 on are made when they are first read."""
    return cls.__annotations__ if "__annotate_func__" in vars(cls) else vars(cls).get("__annotations__")


def _undescribed(value: Any) -> Any:
    raise Undescribed(type(value).__name__)
