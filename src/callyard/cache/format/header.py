"""The reader of the user block of a file, which `record_writer` writes.

It is a line with the format and a checksum, JSON with the positions of all parts, and zeros.
"""

from __future__ import annotations

from ...errors import CacheError, VersionMismatch
from ...utils.lite_stdlib import Any, Frozen, json_loads
from .checked_bytes import checksum, read_at
from .record_writer import FORMAT, FRAME, MARK, MAX_BLOCK

_EARLIER_MARK = b"PENSTOCK "  # of files from before the project got its name


class DamagedFile(CacheError):
    """A file with other content than was written."""


class Header(Frozen):
    """The head of a file. `created` is the Unix time (s), `seconds` the run time, `size` the size of the file (bytes).

    `files` has the names of the contents of files that the result names, see `kept_files`.

    The file may have grown since, because people can add notes to an HDF5 file.
    """

    format: int
    key: str
    name: str
    state: str
    token: str
    created: float
    seconds: float
    size: int
    files: tuple[str, ...] = ()


def damaged(path: str, what: str) -> DamagedFile:
    return DamagedFile(f"{path} is damaged: {what}")


def load_head(fd: int, size: int, path: str, peek: int) -> tuple[Header, int, dict[str, Any], bytes]:
    """Return the head, the length of the user block, the JSON, and the first bytes of the file, `peek` or more."""
    if not size:
        raise DamagedFile(f"{path} is empty")
    data = read_at(fd, min(peek, size), 0)
    line, number, block, meant = _first_line(data, path)
    if not line < block <= size:
        raise damaged(path, "it is cut off")
    if block > MAX_BLOCK:
        raise damaged(path, "its first line makes no sense")
    if block > len(data):
        data = read_at(fd, block, 0)
    text = data[line : data.find(b"\n", line, block)]
    if checksum(text, number).encode() != meant:
        raise damaged(path, "its head does not match its checksum")
    fields = _parse(text, path, number)
    written = block + fields["bytes"]
    if size < written or (number == 1 and size != written):
        raise damaged(path, f"it has {size} bytes instead of {written}")
    known = {name: fields[name] for name in Header.fields if name not in ("size", "files")}
    return Header(**known, size=size, files=tuple(fields["files"])), block, fields, data


_TEXTS = ("key", "name", "state", "token", "frame", "sum")
_COUNTS = ("format", "bytes", "data")
_MOMENTS = ("created", "seconds")
_LATEST = 253402214400  # s: the last day that `datetime` can represent in every time zone


def _parse(text: bytes, path: str, number: int) -> dict[str, Any]:
    """Return the JSON of a head with all fields checked but for `parts`, whose nodes are checked by their decoder."""
    try:
        fields = {"data": 0, "frame": "", "files": [], **json_loads(text)}
        if _is_sound(fields, number):
            return fields
    except (LookupError, TypeError, ValueError):
        pass
    raise damaged(path, "its head has not the fields of this format")


def _is_sound(fields: dict[str, Any], number: int) -> bool:
    return (
        all(type(fields[name]) is str for name in _TEXTS)
        and all(type(fields[name]) is int for name in _COUNTS)
        and all(type(fields[name]) in (int, float) and 0 <= fields[name] < _LATEST for name in _MOMENTS)
        and 0 <= fields["data"] <= fields["bytes"]
        and fields["format"] == number
        and fields["state"] in ("finished", "failed")
        and type(fields["parts"]) is dict
        and type(fields["files"]) is list
        and all(type(name) is str for name in fields["files"])
    )


def _first_line(data: bytes, path: str) -> tuple[int, int, int, bytes]:
    """Return the length of the first line, the format, the length of the user block, and the checksum of the head."""
    if not data.startswith((MARK, _EARLIER_MARK)):
        raise DamagedFile(f"{path} is not a file of Callyard's cache, or its beginning is damaged")
    end = data.find(b"\n", 0, FRAME)
    words = data[: max(end, 0)].split(b" ")
    if len(words) < 2 or not _is_number(words[1]):
        raise damaged(path, "its first line makes no sense")
    if int(words[1]) > FORMAT:
        raise VersionMismatch(
            f"{path} has format {int(words[1])} and this version of Callyard reads up to {FORMAT}: "
            "use a newer Callyard, or another cache directory"
        )
    if len(words) != 4 or not int(words[1]) or not _is_number(words[2]):
        raise damaged(path, "its first line makes no sense")
    return end + 1, int(words[1]), int(words[2]), words[3]


def _is_number(word: bytes) -> bool:
    return word.isdigit() and len(word) < 10
