"""The texts of functions, which a stored call keeps to show later what has changed.

They are for people: a text that is not known, or does not fit, is left out.
"""

from __future__ import annotations

import json
import textwrap
from base64 import b64decode, b64encode
from collections.abc import Iterable, Mapping
from functools import lru_cache
from types import CodeType
from typing import Any

from .syntax_tree import function_of

__all__ = ["Sources", "pack", "source_of", "text_of", "texts", "unpack"]

Sources = tuple[tuple[str, str], ...]  # pairs of a label, as "code of lab.helper", and the text

_MOST = 3 << 10  # characters of packed texts: about 10 kB of code, in a file of some kB
_MOST_UNPACKED = 1 << 20  # bytes


def source_of(function: Any) -> str:
    """Return the text of a function; "" if it is not known."""
    code = getattr(function, "__code__", None)
    return "" if code is None else text_of(code)


@lru_cache(maxsize=1024)
def text_of(code: CodeType) -> str:
    """Return the text of the function with this code, without indentation; "" if it is not known."""
    found = function_of(code)
    if found is None:
        return ""
    node, text = found
    lines = text.splitlines(keepends=True)[code.co_firstlineno - 1 : node.end_lineno]
    return textwrap.dedent("".join(lines))


@lru_cache(maxsize=64)
def pack(sources: Sources, without: str = "") -> str:
    """Return texts as one short text; those that do not fit are left out, and so is the one stored elsewhere."""
    import zlib  # here, because a call without a cache needs none of it

    kept = [(label, text) for label, text in sources if text and text != without]
    while kept:
        packed = b64encode(zlib.compress(json.dumps(dict(kept)).encode(), 9)).decode()
        if len(packed) <= _MOST:
            return packed
        del kept[len(kept) // 2 :]
    return ""


def unpack(packed: str) -> Mapping[str, str]:
    """Return the texts by their labels; none of a text that is damaged."""
    import zlib

    try:
        content = zlib.decompressobj().decompress(b64decode(packed), _MOST_UNPACKED)
        found = json.loads(content)
    except (ValueError, zlib.error):
        return {}
    return found if isinstance(found, dict) and all(isinstance(text, str) for text in found.values()) else {}


def texts(codes: Iterable[tuple[str, CodeType]]) -> Sources:
    """Return the known texts of some code, each with its label."""
    found = {label: text_of(code) for label, code in codes}
    return tuple((label, text) for label, text in found.items() if text)
