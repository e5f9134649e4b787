"""The user block of a file: a line with the format and a checksum, JSON that says where everything is, zeros."""

from __future__ import annotations

from blake3 import blake3

from ..errors import CacheError, VersionMismatch
from ..plain import Plain
from ..system import json_text
from ..typed import Any
from .contents import read_at

FORMAT = 1
FRAME = 256  # bytes that the first line and the checksum of the content take, at most

_MAGIC = b"PENSTOCK "


class Damaged(CacheError):
    """What is in the file is not what was written there."""


class Head(Plain):
    """What the file says about itself. `created` is Unix time, `seconds` the run time, `size` that of the file."""

    format: int
    key: str
    name: str
    state: str
    token: str
    created: float
    seconds: float
    size: int


def make_head(text: str, block: int, checksum: str) -> bytes:
    """The user block. `text` is the JSON without the checksum of the content and the last brace."""
    data = f'{text},"sum":"{checksum}"}}'.encode()
    line = b"PENSTOCK %d %d %s\n" % (FORMAT, block, blake3(data).hexdigest().encode())
    return (line + data + b"\n").ljust(block, b"\0")


def damaged(path: str, what: str) -> Damaged:
    return Damaged(f"{path} is damaged: {what}")


def load_head(fd: int, size: int, path: str, peek: int) -> tuple[Head, int, dict[str, Any], bytes]:
    """The head, where the content begins, the JSON, and the first bytes of the file: `peek`, or more."""
    if not size:
        raise Damaged(f"{path} is empty")
    data = read_at(fd, min(peek, size), 0)
    line, block, checksum = _first_line(data, path)
    if not line < block <= size:
        raise damaged(path, "it is cut off")
    if block > len(data):
        data = read_at(fd, block, 0)
    text = data[line : data.find(b"\n", line, block)]
    if blake3(text).hexdigest().encode() != checksum:
        raise damaged(path, "its head does not match its checksum")
    head, fields = _parse(text, block, path)
    if head.size != size:
        raise damaged(path, f"it has {size} bytes instead of {head.size}")
    return head, block, fields, data


_FIELDS: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("key", "name", "state", "token", "sum"), str),
    **dict.fromkeys(("format", "bytes"), int),
    **dict.fromkeys(("created", "seconds"), (int, float)),
    "parts": dict,
}


def _parse(text: bytes, block: int, path: str) -> tuple[Head, dict[str, Any]]:
    try:
        fields = json_text.loads(text)
        if not all(isinstance(fields[name], kind) for name, kind in _FIELDS.items()):
            raise TypeError
    except (LookupError, TypeError, ValueError, RecursionError):
        raise damaged(path, "its head has not the fields of this format") from None
    known = {name: fields[name] for name in Head.fields if name != "size"}
    return Head(**known, size=block + fields["bytes"]), fields


def _first_line(data: bytes, path: str) -> tuple[int, int, bytes]:
    """The length of the line, that of the user block, and the checksum of the head."""
    if not data.startswith(_MAGIC):
        raise Damaged(f"{path} is not a file of Penstock's cache, or its beginning is damaged")
    end = data.find(b"\n", 0, FRAME)
    words = data[: max(end, 0)].split(b" ")
    if len(words) < 2 or not _is_number(words[1]):
        raise damaged(path, "its first line makes no sense")
    if int(words[1]) > FORMAT:
        raise VersionMismatch(
            f"{path} has format {int(words[1])} and this version of Penstock reads up to {FORMAT}: "
            "use a newer Penstock, or another cache directory"
        )
    if len(words) != 4 or int(words[1]) != FORMAT or not _is_number(words[2]):
        raise damaged(path, "its first line makes no sense")
    return end + 1, int(words[2]), words[3]


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) < 10
