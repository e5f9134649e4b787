"""Light JSON: the C parts of the standard library's `json`, used directly where they work as expected.

The rest of `json` compiles regular expressions, and loading `re` takes a job longer than a short call.
"""

from __future__ import annotations

from .lite_typing import Any, Callable

__all__ = ["compact", "dumps", "lenient", "loads"]

Write = Callable[[Any], str]


class _Values:
    """The settings of a scanner, with the values of `json.loads`."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_int, parse_float = int, float
    parse_constant = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}.__getitem__
    memo: dict[str, str] = {}  # noqa: RUF012  # of keys; emptied by the scanner


def _refuse(value: Any) -> Any:
    raise TypeError(f"JSON has nothing for a {type(value).__name__}")


def _by_c() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[..., Write]]:
    """Return a scanner and a maker of encoders in C. Raise if the C parts differ from those of Python 3.10 to 3.14."""
    from _json import encode_basestring_ascii, make_encoder, make_scanner

    def writer(default: Callable[[Any], Any], between: str, after_key: str) -> Write:
        encode = make_encoder(None, default, encode_basestring_ascii, None, after_key, between, False, False, True)
        return lambda value: "".join(encode(value, 0))

    if writer(_refuse, ",", ":")({"a": [1, None]}) != '{"a":[1,null]}':
        raise ValueError("an encoder that does something else")
    return make_scanner(_Values), writer  # type: ignore[arg-type]


def _by_module() -> tuple[Callable[[str, int], tuple[Any, int]], Callable[..., Write]]:
    from json import JSONDecoder, JSONEncoder

    def writer(default: Callable[[Any], Any], between: str, after_key: str) -> Write:
        return JSONEncoder(default=default, separators=(between, after_key)).encode

    return JSONDecoder().scan_once, writer  # type: ignore[attr-defined]


try:
    _scan, _writer = _by_c()
except Exception:
    _scan, _writer = _by_module()

dumps = _writer(_refuse, ", ", ": ")
compact = _writer(_refuse, ",", ":")
lenient = _writer(repr, ", ", ": ")  # falls back to the repr of a value


def loads(text: str | bytes) -> Any:
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
