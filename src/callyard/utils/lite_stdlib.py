"""Light stand-ins for parts of the standard library, for processes that live for a moment.

An array of jobs starts a thousand interpreters at once, and most calls take less time than the imports of `typing`,
`contextlib`, `dataclasses` and `json`, which a job would need little of. The stand-ins are in one module, because each
module is one more file to find and to open on a shared file system.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import struct
    from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
    from typing import Any, ClassVar, Literal, NoReturn, Protocol

    from typing_extensions import Self, dataclass_transform
else:
    # Annotations are never evaluated, so at run time the names of `typing` only have to exist. The abstract classes are
    # those of `collections.abc`, from the module loaded by each interpreter at its start.
    # `signal` in Python makes enumerations of all numbers, and `struct` only names what is in C.
    import _signal as signal
    import _struct as struct
    from _collections_abc import Callable, Container, Iterable, Iterator, Mapping, Sequence

    class _Type:
        def __class_getitem__(cls, _: object) -> object:
            return cls

    Any = ClassVar = Literal = NoReturn = Protocol = Self = _Type

    def dataclass_transform(**_):
        return lambda cls: cls


__all__ = [
    "TYPE_CHECKING",
    "Any",
    "Callable",
    "ClassVar",
    "Container",
    "Frozen",
    "Iterable",
    "Iterator",
    "Literal",
    "Mapping",
    "NoReturn",
    "Protocol",
    "Self",
    "Sequence",
    "dataclass_transform",
    "json_compact",
    "json_dumps",
    "json_lenient",
    "json_loads",
    "json_texts",
    "signal",
    "struct",
    "suppress",
]


class suppress:  # noqa: N801  # as in `contextlib`
    """A context manager that ends the block at these exceptions, and lets the program go on after it."""

    def __init__(self, *kinds: type[BaseException]) -> None:
        self._kinds = kinds

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        return kind is not None and issubclass(kind, self._kinds)


# -- immutable values ----------------------------------------------------------------------------------------


@dataclass_transform(frozen_default=True)
class Frozen:
    """The base class of immutable values with named fields, in place of frozen dataclasses.

    The annotations of a class are its fields, after those of the bases; assigned values are defaults. The repr leaves
    out fields with a leading underscore. (A dataclass would load `inspect`, and compile code for each class.)
    """

    fields: ClassVar[tuple[str, ...]] = ()  # their names
    _defaults: ClassVar[dict[str, Any]] = {}  # noqa: RUF012  # marked as a class variable, by a name that ruff does not know here

    def __init_subclass__(cls) -> None:
        own, held = cls.__annotations__, vars(cls)
        cls.fields = (*cls.fields, *own)
        cls._defaults = {**cls._defaults, **{name: held[name] for name in own if name in held}}

    def __init__(self, *args: Any, **named: Any) -> None:
        given = {**self._defaults, **dict(zip(self.fields, args, strict=False)), **named}
        twice = args and not named.keys().isdisjoint(self.fields[: len(args)])
        if twice or len(args) > len(self.fields) or given.keys() != {*self.fields}:
            raise TypeError(f"{type(self).__name__} has the fields {', '.join(self.fields)}, each of them once")
        vars(self).update(given)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with these fields changed."""
        return type(self)(**{**vars(self), **changes})

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{type(self).__name__} is not changed: {name} is what it is")

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(self) is type(other) else NotImplemented

    def __hash__(self) -> int:
        return hash(tuple(vars(self)[name] for name in self.fields))

    def __repr__(self) -> str:
        shown = (f"{name}={vars(self)[name]!r}" for name in self.fields if not name.startswith("_"))
        return f"{type(self).__qualname__}({', '.join(shown)})"


# -- JSON ----------------------------------------------------------------------------------------------------
# The C parts of `json`, used directly where they work as expected. The rest of it compiles regular expressions.

_Write = Callable[[Any], str]


class _JSONValues:
    """The settings of a scanner, with the values of `json.loads`."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_int, parse_float = int, float
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__
    memo: dict[str, str] = {}  # noqa: RUF012  # of keys; emptied by the scanner


def _refuse(value: Any) -> Any:
    raise TypeError(f"JSON has nothing for a {type(value).__name__}")


def _json_by_c() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[..., _Write]]:
    """Return a scanner and a maker of encoders in C. Raise if the C parts differ from those of Python 3.10 to 3.14."""
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    def writer(default: Callable[[Any], Any], between: str, after_key: str) -> _Write:
        encode = make_encoder(None, default, encode_basestring_ascii, None, after_key, between, False, False, True)
        return lambda value: "".join(encode(value, 0))

    if writer(_refuse, ",", ":")({"a": [1, None]}) != '{"a":[1,null]}':
        raise ValueError("an encoder that does something else")
    return make_scanner(_JSONValues), writer  # type: ignore[arg-type]


def _json_by_module() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[..., _Write]]:
    from json import JSONDecoder, JSONEncoder

    def writer(default: Callable[[Any], Any], between: str, after_key: str) -> _Write:
        return JSONEncoder(default=default, separators=(between, after_key)).encode

    return JSONDecoder().scan_once, writer  # type: ignore[attr-defined]


try:
    _scan, _writer = _json_by_c()
except Exception:
    _scan, _writer = _json_by_module()

json_dumps = _writer(_refuse, ", ", ": ")
json_compact = _writer(_refuse, ",", ":")
json_lenient = _writer(repr, ", ", ": ")  # falls back to the repr of a value
json_texts = _writer(str, ", ", ": ")  # falls back to the text of a value


def json_loads(text: str | bytes) -> Any:
    """Parse JSON; raise ValueError for any other text."""
    text = (text if isinstance(text, str) else text.decode()).strip()
    try:
        value, end = _scan(text, 0)
    except StopIteration:
        value, end = None, -1
    except (RecursionError, SystemError):  # the C scanner imports the class of its error, and may fail at that
        value, end = None, -1
    if end != len(text):
        raise ValueError(f"this is not JSON: {text[:100]!r}")
    return value
