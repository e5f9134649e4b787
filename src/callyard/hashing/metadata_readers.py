"""Names through which code reads more of objects than a walk follows: metadata, and facts beyond the reach of any key.

The *metadata* of a definition have no effect by themselves: docstrings, annotations, file and line. Metadata count in
the key of a call if any code of the call reads metadata.
"""

from __future__ import annotations

NONE, OWN, ANY = range(3)  # metadata read by code: none, most likely of its own object, of any object

# Attributes, and texts with names of attributes.
_OWN = frozenset(("__dict__", "__dir__", "__module__", "__qualname__"))
_ANY = frozenset(
    (
        *("__doc__", "__annotations__", "__annotate__", "__annotate_func__", "__annotations_cache__", "__signature__"),
        *("__text_signature__", "__type_params__", "__parameters__", "__getattribute__"),
        *("__static_attributes__", "__dataclass_params__", "__abstractmethods__"),
        *("__dataclass_fields__", "__attrs_attrs__"),
    )
)
_ELSEWHERE = frozenset(
    (
        *("__subclasses__", "__code__", "__globals__", "__builtins__", "__firstlineno__", "__getattribute__"),
        *("__file__", "__path__", "__spec__", "__loader__", "__cached__"),
        *("co_filename", "co_firstlineno", "co_lines", "co_positions", "co_lnotab", "co_linetable"),
        *("f_back", "f_globals", "f_locals", "f_code", "f_lineno", "tb_frame", "tb_lineno", "gi_frame", "cr_frame"),
    )
)

# Functions of Python and of libraries.
_READ_OWN = frozenset(("vars", "locals"))
_READ_ANY = frozenset(
    (
        *("globals", "help"),
        *("typing.get_type_hints", "typing_extensions.get_type_hints", "typing_extensions.get_annotations"),
        *("operator.attrgetter", "operator.methodcaller", "dataclasses.fields", "attr.fields", "attrs.fields"),
        *("attr.resolve_types", "attrs.resolve_types"),
    )
)
# Libraries and functions in them, whatever the module between.
_READ_ANY_OF = frozenset(
    (
        *(("functools", "singledispatch"), ("functools", "singledispatchmethod")),
        *(("pydantic", "validate_call"), ("pydantic", "validate_arguments")),
        *(("beartype", "beartype"), ("typeguard", "typechecked")),
    )
)
_READ_ANY_INSIDE = ("inspect.", "pydoc.", "doctest.", "annotationlib.")
_HARMLESS = "inspect.is"  # as `inspect.isfunction`
_UNFOLLOWED = frozenset(
    (
        *("eval", "exec", "compile", "getattr", "locals", "vars", "globals", "open", "input", "__import__"),
        *("importlib.import_module", "importlib.reload", "os.environ", "os.getenv", "os.listdir", "os.getcwd"),
        *("os.urandom", "os.environb", "sys.modules", "sys._getframe"),
        *("inspect.signature", "inspect.getdoc", "inspect.get_annotations", "inspect.getmembers"),
        *("inspect.getattr_static", "inspect.getmodule", "inspect.stack", "inspect.currentframe", "inspect.trace"),
        *("inspect.getsource", "inspect.getsourcelines", "inspect.getsourcefile", "inspect.getfile"),
        *("inspect.findsource", "inspect.getcomments", "inspect.getblock", "inspect.getclosurevars"),
        *("typing.get_type_hints", "typing_extensions.get_type_hints", "operator.attrgetter"),
        *("operator.methodcaller", "io.open", "datetime.datetime", "datetime.date"),
        *("numpy.random", "numpy.load", "numpy.loadtxt", "numpy.genfromtxt", "numpy.fromfile"),
    )
)
_UNFOLLOWED_INSIDE = (
    *("time.", "random.", "secrets.", "uuid.", "subprocess.", "os.environ.", "numpy.random.", "socket."),
    *("linecache.", "traceback.", "gc.", "importlib.resources.", "pkgutil.", "runpy."),
)


def is_unfollowed(name: str, whole: bool = False) -> bool:
    """Return True for a name of Python or a library beyond the reach of any key; `whole`: any name in the module."""
    name = name.removeprefix("builtins.")
    if name in _UNFOLLOWED or name.startswith(_UNFOLLOWED_INSIDE):
        return True
    return whole and any(known.startswith(name + ".") for known in (*_UNFOLLOWED, *_UNFOLLOWED_INSIDE))


def metadata_read_by(name: str, whole: bool = False) -> int:
    """Return NONE, OWN or ANY: the metadata read by a function of this name in Python or a library."""
    name = name.removeprefix("builtins.")
    if name in _READ_OWN:
        return OWN
    if name in _READ_ANY or name.startswith(_READ_ANY_INSIDE):
        return NONE if name.startswith(_HARMLESS) else ANY
    if (name.partition(".")[0], name.rpartition(".")[2]) in _READ_ANY_OF:
        return ANY
    return ANY if whole and any(known.startswith(name + ".") for known in (*_READ_ANY, *_READ_ANY_INSIDE)) else NONE


def metadata_among(names: set[str]) -> int:
    """Return NONE, OWN or ANY: the metadata read by code with these attributes."""
    if not _ANY.isdisjoint(names):
        return ANY
    return NONE if _OWN.isdisjoint(names) else OWN


def unfollowed_among(names: set[str]) -> frozenset[str]:
    """Return those of the attributes beyond the reach of any key."""
    return _ELSEWHERE & names
